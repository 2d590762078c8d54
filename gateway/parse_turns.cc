#include "gateway/parse_turns.h"

namespace spillway {

std::optional<RequestId> ParseTurns::begin_next() {
  if (begun_.size() >= at_once_) return std::nullopt;
  const std::optional<RequestId> next = waiting_.head();
  if (!next) return std::nullopt;
  waiting_.pop();
  begun_.insert(*next);
  return next;
}

void ParseTurns::end(RequestId request) {
  if (begun_.erase(request) == 0) waiting_.erase(request);
}

}  // namespace spillway
