#pragma once

#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "cli/local_model.h"
#include "common/clock.h"
#include "common/mailbox.h"
#include "common/result.h"
#include "common/waker.h"
#include "engine/engine.h"
#include "engine/executor.h"
#include "kernels/sample.h"
#include "kv/kv_cache.h"

namespace spillway {

// How scarce KV slots are for a LocalEngine. By default it has all of its model's, and each request has all that it
// will need from the start; else requests grow, and the youngest is preempted where slots lack.
struct KvScarcity {
  uint32_t slots_max = std::numeric_limits<uint32_t>::max();
  uint32_t growth_margin = std::numeric_limits<uint32_t>::max();  // EngineConfig's
};

// A server of one process without network: Engine on the calling thread, Executor on its own, over a LocalModel. Begins
// with an empty KV cache; generate() blocks until all its requests are answered.
class LocalEngine {
 public:
  // `model` must outlive this, and nobody else may use its backend and decoder meanwhile. Throws SetupError.
  // REQUIRES: chunk_tokens + sequences_max <= model.limits().rows_max.
  LocalEngine(LocalModel& model, uint32_t chunk_tokens, uint32_t sequences_max, const KvScarcity& scarcity = {});

  struct Request {
    std::vector<TokenId> prompt;
    uint32_t tokens_max = 0;           // at least 1
    std::vector<TokenId> stop_tokens;  // end the answer; part of it
    SamplingParams sampling;
    bool digest_logits = false;
  };
  struct Answer {
    std::vector<TokenId> tokens;
    std::vector<uint64_t> logits_digests;  // one per token, where asked
    uint32_t cached_tokens = 0;            // of the prompt, found in the KV cache
    TimePoint started, first_token, last_token;
  };
  // Called between two steps: the compute thread rests, so KV memory may be looked at, and by a test changed.
  using OnToken = std::function<void(size_t request, const EngineToken& token)>;
  // All requests at once, as one batch. The first error ends all of them: kTooLong, kNoSpace, kInvalidArgument of
  // Engine::open, kInternal where logits were not finite.
  Result<std::vector<Answer>> generate(std::span<const Request> requests, const OnToken& on_token);

  const Engine& engine() const { return engine_; }

 private:
  StepDone compute(StepPlan plan);
  Result<void> open(std::span<const Request> requests);
  void close_all();

  KvCache cache_;
  Engine engine_;
  EventFdWaker waker_;
  Mailbox<ComputeEvent> events_;
  Executor executor_;
  std::vector<std::optional<SequenceId>> running_;  // by request
};

}  // namespace spillway
