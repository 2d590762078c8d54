#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

#include "cli/decode_ways.h"
#include "cli/local_model.h"
#include "cli/options.h"

namespace spillway {

// Why K and V are cached and Q is not, for one prompt: the same tokens computed three ways, each really executed.
struct Explanation {
  struct Way {
    DecodeWay way{};
    DecodeRun run;
    std::vector<std::string> counter_mismatches;  // counters that differ from the closed formula, with both values
    bool bits_equal = false;                      // logits of every step, and the final ones byte by byte, as no cache
  };
  std::array<Way, 3> ways;
  bool holds() const;  // all bits equal, all counters as expected, all logits finite
};
// REQUIRES as decode_by() for all ways. Reports progress on stderr.
Explanation explain(LocalModel& model, std::span<const TokenId> prompt, uint32_t tokens);

// The tables as text, for people.
std::string format_explanation(const Explanation& explanation, const ModelConfig& config, size_t prompt_tokens);

// `spillway explain`: exit code 0 when explain() holds, 1 when not. Throws SetupError.
int explain_command(const Options& options);

}  // namespace spillway
