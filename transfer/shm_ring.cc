#include "transfer/shm_ring.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "common/check.h"
#include "kv/digest.h"

namespace spillway {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
constexpr uint64_t kFrameMagic = 0x314D524657505300;

// What lies in front of each payload.
struct WireFrame {
  uint64_t magic = kFrameMagic;
  uint64_t transfer_boot = 0, transfer_counter = 0;
  uint32_t epoch = 0, block_index = 0;
  uint16_t layers_first = 0, layers_count = 0;
  uint32_t bytes = 0;
  uint32_t digest = 0;
  uint32_t padding = 0;
  uint64_t reserved[2] = {};
};
static_assert(sizeof(WireFrame) == kShmFrameHeaderBytes && std::is_trivially_copyable_v<WireFrame>);
using WireWords = std::array<uint64_t, sizeof(WireFrame) / sizeof(uint64_t)>;

size_t frame_ring_bytes(size_t payload_bytes) {
  return kShmFrameHeaderBytes +
         (payload_bytes + kShmFrameHeaderBytes - 1) / kShmFrameHeaderBytes * kShmFrameHeaderBytes;
}

size_t advance(size_t position, size_t bytes, size_t ring_bytes) { return (position + bytes) % ring_bytes; }

// Each word is loaded exactly once: the writer may change it between two looks.
WireFrame load_frame(std::span<std::byte> source) {
  WireWords words;
  auto* const shared = reinterpret_cast<uint64_t*>(source.data());
  for (size_t i = 0; i < words.size(); ++i) words[i] = std::atomic_ref(shared[i]).load(std::memory_order_relaxed);
  return std::bit_cast<WireFrame>(words);
}

void store_frame(const WireFrame& frame, std::span<std::byte> destination) {
  const auto words = std::bit_cast<WireWords>(frame);
  auto* const shared = reinterpret_cast<uint64_t*>(destination.data());
  for (size_t i = 0; i < words.size(); ++i) std::atomic_ref(shared[i]).store(words[i], std::memory_order_relaxed);
}

size_t mapped_bytes(size_t ring_bytes) { return kPageBytes + 2 * ring_bytes; }

}  // namespace

Result<ShmMapping> ShmMapping::map(int fd) {
  struct stat facts {};
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (::fstat(fd, &facts) != 0 || seals < 0) return fail(ErrorCode::kCorrupt, "the ring is not a memfd");
  if ((seals & kSeals) != kSeals)
    return fail(ErrorCode::kCorrupt, fmt::format("the ring has seals {:#x}, needs {:#x}", seals, kSeals));
  const auto file_bytes = static_cast<uint64_t>(facts.st_size);
  if (file_bytes < 2 * kPageBytes || file_bytes > kPageBytes + kShmRingBytesMax || file_bytes % kPageBytes != 0)
    return fail(ErrorCode::kCorrupt, fmt::format("the ring has {} bytes, allowed are whole pages up to {}", file_bytes,
                                                 kPageBytes + kShmRingBytesMax));
  const size_t ring_bytes = file_bytes - kPageBytes;
  void* const base = ::mmap(nullptr, mapped_bytes(ring_bytes), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED)
    return fail(ErrorCode::kNoSpace, fmt::format("no address space for a {} byte ring", ring_bytes));
  ShmMapping mapping(static_cast<std::byte*>(base), ring_bytes);
  // Faulted in now: the first pass round the ring must not pay for it.
  constexpr int kFlags = MAP_SHARED | MAP_FIXED | MAP_POPULATE;
  std::byte* const first = mapping.base_;
  if (::mmap(first, kPageBytes + ring_bytes, PROT_READ | PROT_WRITE, kFlags, fd, 0) == MAP_FAILED ||
      ::mmap(first + kPageBytes + ring_bytes, ring_bytes, PROT_READ | PROT_WRITE, kFlags, fd, kPageBytes) == MAP_FAILED)
    return fail(ErrorCode::kNoSpace, fmt::format("cannot map a {} byte ring: {}", ring_bytes, std::strerror(errno)));
  return mapping;
}

ShmMapping::ShmMapping(ShmMapping&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)), ring_bytes_(other.ring_bytes_) {}

ShmMapping& ShmMapping::operator=(ShmMapping&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(ring_bytes_, other.ring_bytes_);
  return *this;
}

ShmMapping::~ShmMapping() {
  if (base_ != nullptr) ::munmap(base_, mapped_bytes(ring_bytes_));
}

std::span<std::byte> ShmMapping::at(size_t position, size_t bytes) const {
  CHECK(position < ring_bytes_ && bytes <= ring_bytes_);
  return {base_ + kPageBytes + position, bytes};
}

Result<ShmWriter> ShmWriter::make(size_t ring_bytes) {
  CHECK(ring_bytes > 0 && ring_bytes % kPageBytes == 0 && ring_bytes <= kShmRingBytesMax);
  UniqueFd fd(::memfd_create("spillway-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(kPageBytes + ring_bytes)) != 0 ||
      ::fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0)
    return fail(ErrorCode::kNoSpace, fmt::format("cannot make a {} byte ring: {}", ring_bytes, std::strerror(errno)));
  Result<ShmMapping> mapping = ShmMapping::map(fd.get());
  if (!mapping) return tl::unexpected(mapping.error());
  return ShmWriter(std::move(fd), std::move(*mapping));
}

bool ShmWriter::has_room(size_t payload_bytes) const {
  return frames_.size() < kShmWindow && frame_ring_bytes(payload_bytes) <= mapping_.ring_bytes() - used_bytes_;
}

void ShmWriter::write(SendId id, const FrameHeader& header, std::span<const std::byte> payload) {
  CHECK(has_room(payload.size()) && header.bytes == payload.size());
  WireFrame frame;
  frame.transfer_boot = checked_cast<uint64_t>(header.transfer.boot);
  frame.transfer_counter = header.transfer.counter;
  frame.epoch = checked_cast<uint32_t>(header.epoch);
  frame.block_index = header.block_index;
  frame.layers_first = header.layers.first;
  frame.layers_count = header.layers.count;
  frame.bytes = header.bytes;
  frame.digest = header.digest;
  const size_t bytes = frame_ring_bytes(payload.size());
  const std::span<std::byte> place = mapping_.at(position_, bytes);
  store_frame(frame, place);
  if (!payload.empty()) std::memcpy(place.data() + kShmFrameHeaderBytes, payload.data(), payload.size());
  frames_.push_back({id, bytes});
  position_ = advance(position_, bytes, mapping_.ring_bytes());
  used_bytes_ += bytes;
  ++published_;
  control().published.store(published_);
}

Result<std::optional<ShmWriter::Answer>> ShmWriter::next_answer() {
  const uint64_t answered = control().answered.load();
  if (answered - answered_ > frames_.size())  // also when it ran backwards
    return fail(ErrorCode::kCorrupt, fmt::format("the peer answered frame {} of {}", answered, published_));
  if (answered == answered_) return std::nullopt;
  const uint8_t status = control().answers[answered_ % kShmWindow].load(std::memory_order_relaxed);
  if (status > static_cast<uint8_t>(TransferStatus::kRefused))
    return fail(ErrorCode::kCorrupt, fmt::format("the peer answered with status {}", status));
  const Frame frame = frames_.front();
  frames_.pop_front();
  used_bytes_ -= frame.bytes;
  ++answered_;
  return Answer{frame.id, static_cast<TransferStatus>(status)};
}

std::vector<SendId> ShmWriter::unanswered() const {
  std::vector<SendId> ids;
  for (const Frame& frame : frames_) ids.push_back(frame.id);
  return ids;
}

Result<ShmReader> ShmReader::map(int fd, size_t frame_bytes_max) {
  Result<ShmMapping> mapping = ShmMapping::map(fd);
  if (!mapping) return tl::unexpected(mapping.error());
  return ShmReader(std::move(*mapping), frame_bytes_max);
}

Result<std::optional<FrameHeader>> ShmReader::next_frame() {
  const uint64_t published = control().published.load();
  if (published - answered_ > kShmWindow || published < taken_)
    return fail(ErrorCode::kCorrupt, fmt::format("the peer published frame {} with {} answered", published, answered_));
  if (published == taken_) return std::nullopt;
  const WireFrame frame = load_frame(mapping_.at(position_, kShmFrameHeaderBytes));
  if (frame.magic != kFrameMagic) return fail(ErrorCode::kCorrupt, "a frame header has no magic");
  if (frame.bytes > frame_bytes_max_ || frame_ring_bytes(frame.bytes) > mapping_.ring_bytes())
    return fail(ErrorCode::kCorrupt, fmt::format("a frame of {} bytes, at most {} allowed in a ring of {}", frame.bytes,
                                                 frame_bytes_max_, mapping_.ring_bytes()));
  frames_.push_back({advance(position_, kShmFrameHeaderBytes, mapping_.ring_bytes()), frame.bytes, std::nullopt});
  position_ = advance(position_, frame_ring_bytes(frame.bytes), mapping_.ring_bytes());
  ++taken_;
  FrameHeader header;
  header.transfer = {BootId{frame.transfer_boot}, frame.transfer_counter};
  header.epoch = Epoch{frame.epoch};
  header.block_index = frame.block_index;
  header.layers = {frame.layers_first, frame.layers_count};
  header.bytes = frame.bytes;
  header.digest = frame.digest;
  return header;
}

ShmReader::Frame& ShmReader::frame(uint64_t sequence) {
  CHECK(sequence >= answered_ && sequence < taken_);
  Frame& found = frames_[static_cast<size_t>(sequence - answered_)];
  CHECK(!found.answer);
  return found;
}

uint32_t ShmReader::copy_out(uint64_t sequence, std::span<std::byte> destination, size_t part_bytes) {
  const Frame& taken = frame(sequence);
  CHECK(destination.size() == taken.bytes && part_bytes > 0 && destination.size() % part_bytes == 0);
  const std::span<const std::byte> payload = mapping_.at(taken.position, taken.bytes);
  part_digests_.clear();
  for (size_t offset = 0; offset < destination.size(); offset += part_bytes)
    part_digests_.push_back(copy_part(payload.subspan(offset, part_bytes), destination.subspan(offset, part_bytes)));
  return combine_digests(part_digests_);
}

void ShmReader::answer(uint64_t sequence, TransferStatus status) {
  frame(sequence).answer = status;
  while (!frames_.empty() && frames_.front().answer) {
    control().answers[answered_ % kShmWindow].store(static_cast<uint8_t>(*frames_.front().answer),
                                                    std::memory_order_relaxed);
    frames_.pop_front();
    ++answered_;
  }
  control().answered.store(answered_);
}

}  // namespace spillway
