#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "kv/block.h"
#include "transfer/kv_transport.h"
#include "transfer/transfer_job.h"

namespace spillway {

// What the transfer thread does, without the thread: owns a KvTransport and the table of open transfers (the epoch
// check lives here, next to the bytes). No clock, no waiting: the same jobs and frames give the same events. A frame
// lands only if (transfer, epoch) is open, it came from the peer named, its block and layers are inside, and its length
// matches the layout; a part lands once, whole or not. One thread.
class TransferWorker {
 public:
  struct Limits {
    uint32_t transfers_max = 0, jobs_max = 0;
  };
  // `arena` memory outlives the worker; no part of it is touched after the destructor.
  TransferWorker(std::unique_ptr<KvTransport> transport, const SlotArena& arena, const Limits& limits);
  std::span<const std::byte> endpoint() const { return transport_->endpoint(); }
  // Takes a job for the next turn(). REQUIRES: at most jobs_max jobs not yet answered (a credit each).
  void submit(TransferJob job);
  // First all jobs, then the frames that the turn before found, then looks for frames: so jobs that were posted before
  // a frame arrived come before it, if whoever calls submits all posted jobs between two turns. Returns how much it
  // did; after 0 there is nothing to do until ready_fd() or a job. Answers: ConnectBulk = BulkReady (maybe) and
  // BulkLost at its end, CloseTransfer = TransferClosed, SendParts = PartsSent, TransferProbe = TransferAlive; a landed
  // frame = PartsLanded, once per part.
  size_t turn(std::vector<TransferEvent>& events);
  int ready_fd() const { return transport_->ready_fd(); }

  struct Counts {  // frames since start
    uint64_t landed = 0, corrupt = 0;
    uint64_t refused_transfer = 0, refused_epoch = 0, refused_peer = 0, refused_shape = 0, refused_doubled = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  struct Open {
    OpenTransfer job;
    std::vector<bool> taken;  // [block of job.slots][layer]: landed, landing, or landed corrupt
    uint32_t landing = 0;     // accepted, Landed not yet seen
    bool closing = false;
  };
  struct Peer {
    bool ready = false;
    uint32_t in_flight = 0;
    std::deque<SendParts> waiting;  // for PeerReady or the window
  };
  void run(ConnectBulk&& job);
  void run(DisconnectBulk&& job);
  void run(OpenTransfer&& job);
  void run(CloseTransfer&& job);
  void run(SendParts&& job);
  void run(TransferProbe&& job);
  void on(const PeerReady& event);
  void on(const Arrived& event);
  void on(const Landed& event);
  void on(const Sent& event);
  void on(const PeerLost& event);
  Open* admit(const Arrived& event);
  void send_waiting(PeerId id);
  void send(const SendParts& job);

  std::unique_ptr<KvTransport> transport_;
  const SlotArena arena_;
  const Limits limits_;
  std::deque<TransferJob> jobs_;
  std::vector<TransportEvent> found_;  // by the last look, for the next turn
  size_t found_count_ = 0;
  std::unordered_map<TransferId, Open> open_;  // at most transfers_max
  std::map<PeerId, Peer> peers_;               // connected or connecting
  std::map<SendId, PeerId> sends_;             // given to the transport; at most jobs_max
  std::map<ArrivalId, FrameHeader> landing_;   // accepted; at most a window per peer
  std::vector<uint32_t> part_digests_;
  std::vector<TransferEvent>* events_ = nullptr;  // of the turn that runs
  Counts counts_;
};

}  // namespace spillway
