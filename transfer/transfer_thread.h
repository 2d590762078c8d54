#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "common/fault_points.h"
#include "common/mailbox.h"
#include "kv/block.h"
#include "transfer/kv_transport.h"
#include "transfer/transfer_job.h"
#include "transfer/transfer_worker.h"

namespace spillway {

struct TransferFault {            // passed at each OpenTransfer and SendParts
  FaultPoints* points = nullptr;  // nullptr: none
  std::string_view name = {};
};

// The transfer thread: a TransferWorker that sleeps until its mailbox or the transport has something. Every job is
// looked at before any frame that arrived after it was posted.
class TransferThread {
 public:
  using Limits = TransferWorker::Limits;
  // `arena` memory outlives the thread; `events` has room for two items per ConnectBulk, one per other job not yet
  // answered, and one per part of the open transfers (a part lands once).
  TransferThread(std::unique_ptr<KvTransport> transport, const SlotArena& arena, const Limits& limits,
                 Mailbox<TransferEvent>& events, TransferFault fault = {});
  ~TransferThread();                               // fences all peers, joins
  void submit(TransferJob job);                    // loop thread, holding a credit
  const std::vector<std::byte>& endpoint() const;  // of the transport, for Hello

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace spillway
