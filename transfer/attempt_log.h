#pragma once

#include <cstdint>
#include <deque>
#include <map>

#include "common/clock.h"
#include "common/ids.h"
#include "common/result.h"
#include "transfer/messages.h"

namespace spillway {

// The attempts that ended lately, or were called off before they came, so that a late, doubled or overtaken message
// starts nothing. Bounded: the oldest request is forgotten first; what a still later message starts then ends by its
// lease. Loop thread.
class EndedAttempts {
 public:
  explicit EndedAttempts(uint32_t requests_max);
  void add(RequestId request, Epoch epoch);
  bool contains(RequestId request, Epoch epoch) const;  // this attempt, or a later one of the same request, ended
  uint32_t size() const { return static_cast<uint32_t>(highest_.size()); }

 private:
  uint32_t requests_max_;
  std::map<RequestId, Epoch> highest_;
  std::deque<RequestId> order_;  // of first arrival
};

// What a node can refuse before it holds anything: kInvalidArgument (empty prompt, no output, token ids >= vocab_size),
// kTooLong (prompt + output > max_model_len).
Result<void> check_work(const Work& work, uint32_t vocab_size, uint32_t max_model_len);

// Why token `index` ends the request, kNone if it does not.
FinishReason finish_of(const Work& work, uint32_t index, TokenId token);

// As NodeTimings carries it: microseconds, saturated to its range.
uint32_t timing_us(Duration duration);

}  // namespace spillway
