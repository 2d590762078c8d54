#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "common/result.h"
#include "common/unique_fd.h"
#include "kv/block.h"
#include "transfer/kv_transport.h"

// One direction of one peer: a memfd of one control page and `ring_bytes` of payload memory. The writer makes it and
// passes the descriptor on. All that the two sides share are two frame counts, answers and a flag; positions are kept
// by each side for itself. So nothing that the other side writes, at any time, can move an access out of the ring.
namespace spillway {

inline constexpr uint32_t kShmWindow = 64;  // frames written and not yet answered
inline constexpr size_t kShmFrameHeaderBytes = 64;
inline constexpr size_t kShmRingBytesMax = size_t{1} << 30;

// The shared page. Every value may change under the reader at any time: load once, then bound. Counts and flag are used
// in sequentially consistent order: "publish, then look whether the other sleeps" must not pass "say that I sleep, then
// look for what is published".
struct ShmControl {
  alignas(64) std::atomic<uint64_t> published;      // by the writer: frames complete in the ring
  alignas(64) std::atomic<uint64_t> answered;       // by the reader: frames whose answer and space are given back
  alignas(64) std::atomic<uint32_t> writer_sleeps;  // by both: 1 = the reader's side is to wake the writer's side
  alignas(64) std::array<std::atomic<uint8_t>, kShmWindow> answers;  // of frame n: [n % kShmWindow], a TransferStatus
};
static_assert(sizeof(ShmControl) <= kPageBytes && std::atomic<uint64_t>::is_always_lock_free);

// The mapping: control page, then the payload memory twice in a row, so that every frame is contiguous.
class ShmMapping {
 public:
  // kCorrupt when the descriptor is not a sealed memfd of a sane size, kNoSpace when it cannot be mapped.
  static Result<ShmMapping> map(int fd);
  ShmMapping(ShmMapping&& other) noexcept;
  ShmMapping& operator=(ShmMapping&& other) noexcept;
  ~ShmMapping();
  ShmControl& control() const { return *reinterpret_cast<ShmControl*>(base_); }
  // REQUIRES: position < ring_bytes(), bytes <= ring_bytes().
  std::span<std::byte> at(size_t position, size_t bytes) const;
  size_t ring_bytes() const { return ring_bytes_; }

 private:
  ShmMapping(std::byte* base, size_t ring_bytes) : base_(base), ring_bytes_(ring_bytes) {}
  std::byte* base_ = nullptr;
  size_t ring_bytes_ = 0;
};

// The sender's end. One thread.
class ShmWriter {
 public:
  // Makes the memfd, sealed against shrinking, growing and unsealing. `ring_bytes`: whole pages.
  static Result<ShmWriter> make(size_t ring_bytes);
  int fd() const { return fd_.get(); }
  void close_fd() { fd_ = UniqueFd(); }  // once passed on
  bool has_room(size_t payload_bytes) const;
  // Copies header and payload in and publishes. REQUIRES has_room(payload.size()).
  void write(SendId id, const FrameHeader& header, std::span<const std::byte> payload);
  struct Answer {
    SendId id{};
    TransferStatus status{};
  };
  // The next frame that the reader has answered. kCorrupt: the reader broke the rules; drop it.
  Result<std::optional<Answer>> next_answer();
  std::vector<SendId> unanswered() const;
  ShmControl& control() const { return mapping_.control(); }

 private:
  ShmWriter(UniqueFd fd, ShmMapping mapping) : fd_(std::move(fd)), mapping_(std::move(mapping)) {}
  struct Frame {
    SendId id{};
    size_t bytes = 0;  // of ring, header included
  };
  UniqueFd fd_;
  ShmMapping mapping_;
  std::deque<Frame> frames_;  // in the ring, at most kShmWindow
  size_t position_ = 0, used_bytes_ = 0;
  uint64_t published_ = 0, answered_ = 0;
};

// The receiver's end. One thread.
class ShmReader {
 public:
  // Maps a descriptor that came from a peer. Frames above `frame_bytes_max` break the rules.
  static Result<ShmReader> map(int fd, size_t frame_bytes_max);
  // Takes the next frame's header; nothing when there is none. kCorrupt: the writer broke the rules; drop it.
  Result<std::optional<FrameHeader>> next_frame();
  uint64_t taken() const { return taken_; }  // frames taken so far: the next one's sequence number
  // Copies the payload of a taken frame part by part and returns the combined digest of what was copied.
  // REQUIRES: not answered yet, size == its header.bytes, a whole number of `part_bytes`.
  uint32_t copy_out(uint64_t sequence, std::span<std::byte> destination, size_t part_bytes);
  // Tells the writer; space goes back in order. REQUIRES: taken, not answered yet.
  void answer(uint64_t sequence, TransferStatus status);
  ShmControl& control() const { return mapping_.control(); }

 private:
  ShmReader(ShmMapping mapping, size_t frame_bytes_max)
      : mapping_(std::move(mapping)), frame_bytes_max_(frame_bytes_max) {}
  struct Frame {
    size_t position = 0;  // of the payload
    uint32_t bytes = 0;
    std::optional<TransferStatus> answer;
  };
  Frame& frame(uint64_t sequence);
  ShmMapping mapping_;
  size_t frame_bytes_max_;
  std::deque<Frame> frames_;  // taken, from number answered_ on; at most kShmWindow
  std::vector<uint32_t> part_digests_;
  size_t position_ = 0;
  uint64_t taken_ = 0, answered_ = 0;
};

}  // namespace spillway
