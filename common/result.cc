#include "common/result.h"

namespace spillway {

std::string_view error_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "invalid_argument";
    case ErrorCode::kUnsupported: return "unsupported";
    case ErrorCode::kTooLong: return "too_long";
    case ErrorCode::kNoSpace: return "no_space";
    case ErrorCode::kQueueFull: return "queue_full";
    case ErrorCode::kCorrupt: return "corrupt";
    case ErrorCode::kPeerLost: return "peer_lost";
    case ErrorCode::kDeadline: return "deadline";
    case ErrorCode::kCancelled: return "cancelled";
    case ErrorCode::kUnavailable: return "unavailable";
    case ErrorCode::kInternal: return "internal";
  }
  return "unknown";
}

}  // namespace spillway
