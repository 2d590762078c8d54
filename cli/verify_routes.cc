#include "cli/verify_routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "cli/decode_ways.h"
#include "cli/local_engine.h"
#include "common/check.h"

namespace spillway {
namespace {

constexpr uint32_t kChunks[] = {1, 17, 64, 512};
constexpr uint32_t kThreads[] = {1, 2};
constexpr uint32_t kBatch = 8, kPlaceInBatch = 3;
constexpr uint32_t kChunkTokens = 512;  // of routes that are not about chunks

LocalEngine::Request local_request(const VerifyRequest& request) {
  return {.prompt = request.prompt,
          .tokens_max = request.tokens_max,
          .stop_tokens = {},
          .sampling = {},
          .digest_logits = true};
}

RouteResult local_result(const LocalEngine::Answer& answer) {
  return route_result(answer.tokens, answer.logits_digests);
}

Result<RouteResult> direct(LocalModel& model, const VerifyRequest& request, DecodeWay way) {
  const DecodeRun run = decode_by(model, way, request.prompt, request.tokens_max);
  std::vector<TokenId> tokens;
  std::vector<uint64_t> digests;
  for (const DecodeStep& step : run.steps) {
    if (!step.finite) return fail(ErrorCode::kInternal, "logits are not finite");
    tokens.push_back(step.token);
    digests.push_back(step.logits_digest);
  }
  return route_result(tokens, digests);
}

Result<RouteResult> engine_alone(LocalModel& model, const VerifyRequest& request, uint32_t chunk_tokens) {
  LocalEngine engine(model, chunk_tokens, 1);
  const LocalEngine::Request local = local_request(request);
  return engine.generate({&local, 1}, {}).map([](const auto& answers) { return local_result(answers.front()); });
}

// The sign of one value of K: the first layer's, first head's, first token's, first dimension's.
void flip_kv_bit(LocalModel& model, SlotId slot) {
  constexpr std::byte kSign{0x80};  // in the value's last byte
  model.kv().parts(slot, {0, 1})[model.kv().layout.value_bytes() - 1] ^= kSign;
}

Result<RouteResult> kv_cache(LocalModel& model, const VerifyRequest& request) {
  LocalEngine engine(model, kChunkTokens, 1);
  const LocalEngine::Request local = local_request(request);
  const auto flip = [&](size_t, const EngineToken& token) {
    if (request.flip_bit && token.index == 0)
      flip_kv_bit(model, engine.engine().sequence(token.sequence).blocks.front().slot());
  };
  return engine.generate({&local, 1}, flip).map([](const auto& answers) { return local_result(answers.front()); });
}

// Neighbours of other lengths and other text, some longer and some shorter-lived than the request itself.
Result<RouteResult> in_batch(LocalModel& model, const VerifyRequest& request) {
  LocalEngine engine(model, 64, kBatch);
  std::vector<LocalEngine::Request> batch(kBatch, local_request(request));
  for (uint32_t i = 0; i < kBatch; ++i) {
    if (i == kPlaceInBatch) continue;
    std::vector<TokenId>& prompt = batch[i].prompt;
    std::reverse(prompt.begin(), prompt.end());
    std::rotate(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(i % prompt.size()), prompt.end());
    prompt.resize(1 + prompt.size() * i / kBatch);
    batch[i].tokens_max = 1 + request.tokens_max * i / kBatch;
  }
  return engine.generate(batch, {}).map([](const auto& answers) { return local_result(answers[kPlaceInBatch]); });
}

// Other text, and a prompt so short of a block's end that the answer crosses it half-way. `index` tells them apart.
LocalEngine::Request grower(const LocalModel& model, const VerifyRequest& request, uint32_t index) {
  const uint32_t block_tokens = model.kv().layout.block_tokens;
  LocalEngine::Request grower = local_request(request);
  grower.prompt.resize(block_tokens - (request.tokens_max - 2) / 2 % block_tokens);
  for (uint32_t i = 0; i < grower.prompt.size(); ++i)
    grower.prompt[i] = (request.prompt[i % request.prompt.size()] + 1 + index + i) % model.config().vocab;
  return grower;
}

// Older neighbours grow past the pool's last slot, so the request, the youngest, loses all its own while it decodes,
// and comes back when they are done. Each took a slot: few of its blocks are still in the cache then.
Result<RouteResult> preempted(LocalModel& model, const VerifyRequest& request) {
  const KvLayout& layout = model.kv().layout;
  const auto prompt_tokens = static_cast<uint32_t>(request.prompt.size());
  const uint32_t blocks = layout.blocks_for(prompt_tokens), older = std::min(blocks, kBatch - 1);
  std::vector<LocalEngine::Request> batch;
  for (uint32_t index = 0; index < older; ++index) batch.push_back(grower(model, request, index));
  batch.push_back(local_request(request));
  const uint32_t alone = layout.blocks_for(prompt_tokens + request.tokens_max - 1);
  LocalEngine engine(model, kChunkTokens, kBatch, {.slots_max = std::max(blocks + older, alone), .growth_margin = 0});
  const auto answers = engine.generate(batch, {});
  if (!answers) return tl::unexpected<Error>(answers.error());
  return check_preempted(engine.engine().counters()).map([&] { return local_result(answers->back()); });
}

Result<RouteResult> prefix_hit(LocalModel& model, const VerifyRequest& request) {
  LocalEngine engine(model, kChunkTokens, 1);
  const LocalEngine::Request local = local_request(request);
  const auto cold = engine.generate({&local, 1}, {});
  if (!cold) return tl::unexpected<Error>(cold.error());
  const auto hit = engine.generate({&local, 1}, {});
  if (!hit) return tl::unexpected<Error>(hit.error());
  const uint32_t block_tokens = model.kv().layout.block_tokens;
  const size_t full = (request.prompt.size() - 1) / block_tokens * block_tokens;
  if (hit->front().cached_tokens != full)
    return fail(ErrorCode::kInternal,
                fmt::format("the second request found {} of {} tokens in the cache", hit->front().cached_tokens, full));
  return local_result(hit->front());
}

Result<RouteResult> with_threads(LocalModel& model, const VerifyRequest& request, uint32_t threads) {
  LocalModel::Limits limits = model.limits();
  limits.threads = threads;
  LocalModel other(model.file(), limits);
  return engine_alone(other, request, kChunkTokens);
}

}  // namespace

Result<void> check_preempted(const EngineCounters& counters) {
  if (counters.preemptions > 0 && counters.recomputed_tokens > 0) return {};
  return fail(ErrorCode::kInternal,
              fmt::format("{} preemptions and {} positions computed again; there should have been some of both",
                          counters.preemptions, counters.recomputed_tokens));
}

RouteResult route_result(std::span<const TokenId> tokens, std::span<const uint64_t> logits_digests) {
  CHECK(tokens.size() == logits_digests.size());
  uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a over the little-endian bytes of the digests
  for (const uint64_t digest : logits_digests)
    for (int shift = 0; shift < 64; shift += 8) hash = (hash ^ ((digest >> shift) & 0xff)) * 0x100000001b3ull;
  return {.tokens = {tokens.begin(), tokens.end()}, .logits_hash = hash};
}

std::vector<RouteOutcome> run_routes(std::span<const VerifyRoute> routes) {
  std::vector<RouteOutcome> outcomes;
  for (const VerifyRoute& route : routes) {
    fmt::print(stderr, "route {} of {}: {}\n", outcomes.size() + 1, routes.size(), route.name);
    const TimePoint start = steady_now();
    RouteOutcome outcome{.name = route.name, .result = route.run(), .equal = false, .elapsed = {}};
    outcome.elapsed = steady_now() - start;
    const Result<RouteResult>& baseline = outcomes.empty() ? outcome.result : outcomes.front().result;
    outcome.equal = outcome.result && baseline && *outcome.result == *baseline;
    outcomes.push_back(std::move(outcome));
  }
  return outcomes;
}

bool all_equal(std::span<const RouteOutcome> outcomes) {
  return std::all_of(outcomes.begin(), outcomes.end(), [](const RouteOutcome& outcome) { return outcome.equal; });
}

VerifyRequest verify_request(const ModelFile& file, uint32_t prompt_tokens, uint32_t tokens_max) {
  CHECK(prompt_tokens > 0 && tokens_max >= 2);
  VerifyRequest request{.prompt = {}, .tokens_max = tokens_max, .flip_bit = false};
  for (uint32_t line = 1; request.prompt.size() < prompt_tokens; ++line) {
    const std::vector<TokenId> tokens = file.encode_prompt(
        fmt::format("Line {}: K and V of earlier tokens are kept, and only the newest row of Q meets them.\n", line),
        false);
    request.prompt.insert(request.prompt.end(), tokens.begin(), tokens.end());
  }
  request.prompt.resize(prompt_tokens);
  return request;
}

LocalModel::Limits verify_limits(const ModelConfig& config, const VerifyRequest& request, const std::string& isa,
                                 uint32_t threads) {
  const auto positions = static_cast<uint32_t>(request.prompt.size()) + request.tokens_max;
  const KvLayout layout = config.kv_layout(request.precision.kv);
  const uint64_t blocks = uint64_t{kBatch + 1} * layout.blocks_for(positions);  // the batch and what it leaves cached
  return {.isa = isa,
          .threads = threads,
          .rows_max = std::max(kChunkTokens + kBatch, positions),
          .logit_rows_max = std::max(kBatch, positions),  // without cache every row reaches the classifier
          .model_len = positions,
          .kv_bytes = blocks * layout.block_bytes(),
          .cache = request.cache,
          .precision = request.precision};
}

std::vector<VerifyRoute> local_routes(LocalModel& model, const VerifyRequest& request) {
  std::vector<VerifyRoute> routes{
      {"no cache", [&model, request] { return direct(model, request, DecodeWay::kNoCache); }},
      {"pruned", [&model, request] { return direct(model, request, DecodeWay::kPruned); }},
      {"KV cache", [&model, request] { return kv_cache(model, request); }},
  };
  for (const uint32_t chunk : kChunks)
    routes.push_back(
        {fmt::format("chunks of {}", chunk), [&model, request, chunk] { return engine_alone(model, request, chunk); }});
  for (const uint32_t threads : kThreads)
    routes.push_back({fmt::format("{} thread{}", threads, threads == 1 ? "" : "s"),
                      [&model, request, threads] { return with_threads(model, request, threads); }});
  routes.push_back({"batch of 1, cold", [&model, request] { return engine_alone(model, request, kChunkTokens); }});
  routes.push_back({fmt::format("batch of {}", kBatch), [&model, request] { return in_batch(model, request); }});
  if (request.prompt.size() >= model.kv().layout.block_tokens)  // else a neighbour's prompt would not fit
    routes.push_back({"preempted, recomputed", [&model, request] { return preempted(model, request); }});
  if (request.prompt.size() > model.kv().layout.block_tokens)
    routes.push_back({"prefix hit", [&model, request] { return prefix_hit(model, request); }});
  return routes;
}

}  // namespace spillway
