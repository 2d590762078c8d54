#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace spillway {

// Expected outcomes that a caller must handle. The names travel: in Failed messages, API errors, logs and metrics.
enum class ErrorCode : uint8_t {
  kInvalidArgument,  // the request is wrong; repeating it will not help
  kUnsupported,      // well-formed, but not something this build does
  kTooLong,          // prompt + output exceed the context
  kNoSpace,          // no blocks, sequences or credits now; may succeed later
  kQueueFull,        // the gateway's queue is at its bound
  kCorrupt,          // bytes contradict their own description
  kPeerLost,         // the other process is gone or silent past its lease
  kDeadline,         // time ran out
  kCancelled,        // the client left or asked to stop
  kUnavailable,      // nobody here can take this work now
  kInternal,         // a fault of ours, reported instead of a wrong answer
};
std::string_view error_name(ErrorCode code);  // "invalid_argument", ...

struct Error {
  ErrorCode code;
  std::string detail;  // cause, numbers, remedy; for people
};

template <class T>
using Result = tl::expected<T, Error>;

inline tl::unexpected<Error> fail(ErrorCode code, std::string detail) {
  return tl::unexpected<Error>(Error{code, std::move(detail)});
}

}  // namespace spillway
