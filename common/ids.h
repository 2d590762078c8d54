#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

// Distinct identifier types. A value of one never converts silently to another.
namespace spillway {

using TokenId = uint32_t;  // data, not a handle: an index into the embedding table

enum class BootId : uint64_t {};      // random, drawn at process start; a restarted process is a stranger
enum class PeerId : uint32_t {};      // local handle of one remote process; never travels
enum class Epoch : uint32_t {};       // ownership of a request and its transfer; a higher one fences the lower
enum class SequenceId : uint32_t {};  // row of one Engine's sequence table
enum class StepId : uint64_t {};      // one forward pass of one Engine, ascending
enum class SendId : uint64_t {};      // one KvTransport::send
enum class ArrivalId : uint64_t {};   // one frame that a KvTransport has announced

// Unique over processes and time without coordination.
struct RequestId {
  BootId boot{};
  uint64_t counter = 0;
  auto operator<=>(const RequestId&) const = default;
};
// As logs and `id` fields of answers name it, the same in every process.
std::string id_text(const RequestId& id);

struct TransferId {
  BootId boot{};
  uint64_t counter = 0;
  auto operator<=>(const TransferId&) const = default;
};

}  // namespace spillway

template <>
struct std::hash<spillway::RequestId> {
  size_t operator()(const spillway::RequestId& id) const noexcept {
    return static_cast<size_t>(static_cast<uint64_t>(id.boot) ^ (id.counter * 0x9E3779B97F4A7C15ull));
  }
};
template <>
struct std::hash<spillway::TransferId> {
  size_t operator()(const spillway::TransferId& id) const noexcept {
    return static_cast<size_t>(static_cast<uint64_t>(id.boot) ^ (id.counter * 0x9E3779B97F4A7C15ull));
  }
};
