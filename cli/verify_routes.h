#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "cli/local_model.h"
#include "common/clock.h"
#include "common/ids.h"
#include "common/result.h"
#include "engine/engine.h"

namespace spillway {

// What a route produced: greedy tokens, and one hash over the raw f32 bytes of all logits at every generated position.
struct RouteResult {
  std::vector<TokenId> tokens;
  uint64_t logits_hash = 0;
  bool operator==(const RouteResult&) const = default;
};
RouteResult route_result(std::span<const TokenId> tokens, std::span<const uint64_t> logits_digests);

// One way to serve the same request. `run` blocks; it may be called once.
struct VerifyRoute {
  std::string name;
  std::function<Result<RouteResult>()> run;
};

struct RouteOutcome {
  std::string name;
  Result<RouteResult> result;
  bool equal = false;  // to the first route's, tokens and hash
  Duration elapsed{};
};
// Runs every route in order; names each on stderr before it starts. The first is what the others must equal.
std::vector<RouteOutcome> run_routes(std::span<const VerifyRoute> routes);
bool all_equal(std::span<const RouteOutcome> outcomes);
// An error unless a sequence was preempted and computed again.
Result<void> check_preempted(const EngineCounters& counters);

// The request of all routes, and who else is served beside it.
struct VerifyRequest {
  std::vector<TokenId> prompt;
  uint32_t tokens_max = 0;     // generated on each route, whatever the tokens are; at least 2
  bool flip_bit = false;       // flips one bit of the prompt's KV before the first decode step of route "KV cache"
  WeightsCacheConfig cache{};  // both of LocalModel::Limits
  Precision precision{};
};
// `tokens_max` tokens after the first `prompt_tokens` tokens of a fixed text.
VerifyRequest verify_request(const ModelFile& file, uint32_t prompt_tokens, uint32_t tokens_max);

// Routes inside this process for one ISA level, `model`'s: no cache, pruned, KV cache, chunks, thread counts, batch of
// 8, and where the prompt fills a block preempted and recomputed, prefix hit. Within one numerics class all must be
// equal. `model` must outlive them. REQUIRES model.limits() from verify_limits() of the same request.
std::vector<VerifyRoute> local_routes(LocalModel& model, const VerifyRequest& request);
LocalModel::Limits verify_limits(const ModelConfig& config, const VerifyRequest& request, const std::string& isa,
                                 uint32_t threads);

}  // namespace spillway
