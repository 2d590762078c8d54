#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "common/clock.h"
#include "common/ids.h"
#include "transfer/messages.h"

namespace spillway {

// Puts the tokens of one attempt in order. Token 1 comes from another node than token 0 and may overtake it.
class TokenOrder {
 public:
  enum class Put : uint8_t { kTaken, kDoubled, kOverflow };  // kOverflow: too far ahead of the first that is missing
  Put put(const Token& token, uint32_t ahead_max);
  std::optional<Token> next();  // the next in order, if it is here
  uint32_t next_index() const { return next_index_; }

 private:
  uint32_t next_index_ = 0;
  std::map<uint32_t, Token> ahead_;
};

// Where one attempt runs.
struct AttemptNodes {
  PeerId prefill{}, decode{};
  bool colocated() const { return prefill == decode; }
};

// One placement of a request. A leg is closed once its node cannot matter any more; the attempt goes on without it. A
// colocated one has a decode leg alone, from the beginning.
struct RunningAttempt {
  struct Leg {
    PeerId node{};
    bool open = true;
  };
  Attempt attempt;
  Leg prefill, decode;
  bool decoding = false;  // a token of D arrived: P has nothing to add
  TokenOrder tokens;
  TimePoint progress_by{};    // a token must leave for the client before; moved on while its node works on others first
  TimePoint last_token_at{};  // the dispatch before the first

  AttemptNodes nodes() const { return {prefill.node, decode.node}; }
  bool colocated() const { return nodes().colocated(); }
  Leg& first_leg() { return colocated() ? decode : prefill; }  // whence token 0 and the prompt's scores come
};

}  // namespace spillway
