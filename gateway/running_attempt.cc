#include "gateway/running_attempt.h"

#include <utility>

namespace spillway {

TokenOrder::Put TokenOrder::put(const Token& token, uint32_t ahead_max) {
  if (token.index < next_index_) return Put::kDoubled;
  if (token.index - next_index_ > ahead_max) return Put::kOverflow;
  return ahead_.emplace(token.index, token).second ? Put::kTaken : Put::kDoubled;
}

std::optional<Token> TokenOrder::next() {
  const auto first = ahead_.begin();
  if (first == ahead_.end() || first->first != next_index_) return std::nullopt;
  std::optional<Token> token = std::move(first->second);
  ahead_.erase(first);
  ++next_index_;
  return token;
}

}  // namespace spillway
