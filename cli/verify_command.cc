#include "cli/verify_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <iterator>

#include "cli/memory_plan.h"
#include "cli/packed_model.h"
#include "cli/precision.h"
#include "cli/process_routes.h"
#include "kernels/make_backend.h"

namespace spillway {
namespace {

// Over one attention split and four blocks, with a partial one that the answer outgrows.
constexpr uint32_t kPromptTokens = 310;
// The slow level, and any but the main one, proves itself on tiny models in full; a large one is given less.
constexpr const char* kSlowLevel = "scalar";
constexpr uint64_t kLargeModelBytes = uint64_t{16} << 20;
constexpr uint32_t kShortPromptTokens = 66, kShortTokens = 2;  // one block and two tokens: there is a prefix to hit

VerifyGroup verify_level(const ModelFile& file, const std::string& isa, uint32_t threads,
                         const VerifyRequest& request) {
  LocalModel model(file, verify_limits(file.config(), request, isa, threads));
  fmt::print(stderr, "{}: {} prompt tokens, {} generated\n", model.backend().name(), request.prompt.size(),
             request.tokens_max);
  return {.backend = std::string(model.backend().name()), .outcomes = run_routes(local_routes(model, request))};
}

std::string token_list(const std::vector<TokenId>& tokens) {
  constexpr size_t kShown = 5;
  std::string list = fmt::format("{}:", tokens.size());
  for (size_t i = 0; i < std::min(kShown, tokens.size()); ++i) list += fmt::format(" {}", tokens[i]);
  return tokens.size() > kShown ? list + " ..." : list;
}

}  // namespace

std::vector<VerifyGroup> verify_locally(const ModelFile& file, const std::string& isa, uint32_t threads,
                                        const VerifyRequest& request, const VerifyRequest& request_other) {
  std::vector<std::string> levels = available_isa_levels(request.precision);
  std::reverse(levels.begin(), levels.end());
  const std::string main_level = isa == "auto" ? levels.front() : isa;
  std::vector<VerifyGroup> groups{verify_level(file, main_level, threads, request)};
  for (const std::string& level : levels)
    if (level != main_level) groups.push_back(verify_level(file, level, threads, request_other));
  return groups;
}

std::string format_verification(std::span<const VerifyGroup> groups) {
  fmt::memory_buffer text;
  const auto out = std::back_inserter(text);
  for (const VerifyGroup& group : groups) {
    fmt::format_to(out, "{}\n  {:<22}{:<42}{:<18}{:>9}  {}\n", group.backend, "route", "tokens", "logit hash", "ms",
                   "equal?");
    for (const RouteOutcome& outcome : group.outcomes) {
      if (outcome.result) {
        fmt::format_to(out, "  {:<22}{:<42}{:016x}  {:>9.0f}  {}\n", outcome.name, token_list(outcome.result->tokens),
                       outcome.result->logits_hash, milliseconds(outcome.elapsed), outcome.equal ? "yes" : "NO");
      } else {
        fmt::format_to(out, "  {:<22}FAILED: {}\n", outcome.name, outcome.result.error().detail);
      }
    }
    fmt::format_to(out, "\n");
  }
  return fmt::to_string(text);
}

int verify_command(const Options& options) {
  const ModelFile file(options.model);
  const uint32_t model_len = effective_model_len(options, file.config());
  const uint32_t tokens = options.verify_tokens;
  if (model_len <= tokens)
    throw SetupError(
        fmt::format("{} tokens leave no room for a prompt in {} positions: lower --max-tokens", tokens, model_len));
  const bool large = file.file().bytes().size() > kLargeModelBytes;
  VerifyRequest request_full = verify_request(file, std::min(kPromptTokens, model_len - tokens), tokens);
  VerifyRequest request_other =
      large ? verify_request(file, std::min(kShortPromptTokens, model_len - kShortTokens), kShortTokens) : request_full;
  const Precision precision = precision_of(options);
  const std::string main_level = options.isa == "auto" ? available_isa_levels(precision).back() : options.isa;
  request_full.cache = request_other.cache = weights_cache_of(options);
  request_full.precision = request_other.precision = precision;
  VerifyRequest request = main_level == kSlowLevel ? request_other : request_full;
  request.flip_bit = options.flip_bit;
  std::vector<VerifyGroup> groups = verify_locally(file, options.isa, options.threads, request, request_other);
  if (const Result<RouteResult>& expected = groups.front().outcomes.front().result) {
    Options nodes = options;
    nodes.device_memory = verify_limits(file.config(), request, main_level, options.threads).kv_bytes;
    for (RouteOutcome& outcome : verify_processes(nodes, "/proc/self/exe", request, *expected))
      groups.front().outcomes.push_back(std::move(outcome));
  }
  fmt::print("{}", format_verification(groups));
  const bool equal =
      std::all_of(groups.begin(), groups.end(), [](const VerifyGroup& group) { return all_equal(group.outcomes); });
  fmt::print("{}\n", equal ? "every route is equal, bit by bit" : "NOT every route is equal");
  return equal ? 0 : 1;
}

}  // namespace spillway
