#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "common/check.h"
#include "kv/digest.h"
#include "tests/fuzz/fuzz_input.h"
#include "transfer/shm_handshake.h"
#include "transfer/shm_ring.h"

// What a peer of shared memory can do to us: its endpoint's bytes, its greeting, and all that it writes into the ring.
namespace spillway {
namespace {

using Bytes = std::span<const std::byte>;
constexpr size_t kRingBytes = 2 * kPageBytes, kFrameBytesMax = kPageBytes;

void check_endpoint(Bytes bytes) {
  const auto endpoint = ShmEndpoint::parse(bytes);
  if (!endpoint) return;
  CHECK(endpoint->path.starts_with('/') && std::ranges::equal(endpoint->bytes(), bytes));
}

// One packet with or without a descriptor. Accepted is a greeting with a ring and an endpoint within its packet.
void check_greeting(Bytes bytes, bool with_ring) {
  std::array<int, 2> ends{};
  CHECK(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) == 0);
  const UniqueFd here(ends[0]), there(ends[1]);
  iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (with_ring) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* const rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &ends[1], sizeof(int));
  }
  if (::sendmsg(there.get(), &message, MSG_NOSIGNAL) < 0) return;
  const auto greeting = receive_greeting(here.get());
  if (!greeting || !greeting->has_value()) return;
  CHECK(with_ring && (*greeting)->ring && (*greeting)->endpoint.size() <= bytes.size());
  check_endpoint((*greeting)->endpoint);
}

// The peer's view of one ring, mapped once for all inputs: making rings is slow.
struct Ring {
  ShmWriter writer = std::move(ShmWriter::make(kRingBytes).value());
  ShmMapping mapping = std::move(ShmMapping::map(writer.fd()).value());
};

// Bytes: the published count, then what lies in the ring; then, a byte a move, what the reader does. It takes no more
// than the window, copies only what its bounds allow, and digests what it copied.
void check_ring(Bytes bytes) {
  static Ring ring;
  if (bytes.size() < 4) return;
  const auto moves = bytes.subspan(1, 3);
  const auto published = static_cast<uint64_t>(bytes[0]);
  const Bytes payload = bytes.subspan(4, std::min(bytes.size() - 4, kRingBytes));
  const auto memory = ring.mapping.at(0, kRingBytes);
  std::ranges::fill(memory, std::byte{});
  std::ranges::copy(payload, memory.begin());
  ring.mapping.control().answered.store(0);
  ring.mapping.control().published.store(published);
  auto reader = ShmReader::map(ring.writer.fd(), kFrameBytesMax);
  CHECK(reader.has_value());
  std::vector<FrameHeader> taken;
  uint64_t answered = 0;
  for (;;) {
    const auto frame = reader->next_frame();
    if (!frame) {
      CHECK(frame.error().code == ErrorCode::kCorrupt);
      break;
    }
    if (!*frame) break;
    taken.push_back(**frame);
    CHECK((*frame)->bytes <= kFrameBytesMax && taken.size() <= published && taken.size() == reader->taken());
    CHECK(taken.size() - answered <= kShmWindow);
    if (static_cast<uint8_t>(moves[taken.size() % 3]) % 2 == 0) continue;  // answered later, or never
    std::vector<std::byte> landed((*frame)->bytes);
    const uint32_t digest = reader->copy_out(taken.size() - 1, landed, std::max<size_t>(landed.size(), 1));
    std::vector<uint32_t> parts;
    if (!landed.empty()) parts.push_back(part_digest(landed));
    CHECK(digest == combine_digests(parts));
    reader->answer(taken.size() - 1, TransferStatus::kOk);
    answered = ring.mapping.control().answered.load();
    CHECK(answered <= taken.size());
  }
}

}  // namespace
}  // namespace spillway

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway;
  if (size == 0) return -1;
  const Bytes bytes = input_bytes(data, size).subspan(1);
  switch (data[0] % 4) {
    case 0: check_endpoint(bytes); break;
    case 1: check_greeting(bytes, false); break;
    case 2: check_greeting(bytes, true); break;
    case 3: check_ring(bytes); break;
  }
  return 0;
}
