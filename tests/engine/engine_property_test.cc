#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <limits>
#include <optional>
#include <vector>

#include "engine/engine.h"
#include "tests/engine/fake_executor.h"

namespace spillway {
namespace {

constexpr uint32_t kBlockTokens = 16;
constexpr uint32_t kSlots = 12;
constexpr uint32_t kSequences = 3;

struct Operation {
  enum class Kind : uint8_t { kOpen, kPlan, kAnswer, kClose } kind{};
  uint32_t prompt_tokens = 0, output_tokens = 0, family = 0, which = 0;
};

void showValue(const Operation& operation, std::ostream& os) {
  static constexpr const char* kNames[] = {"open", "plan", "answer", "close"};
  os << kNames[static_cast<size_t>(operation.kind)] << "(prompt " << operation.prompt_tokens << ", output "
     << operation.output_tokens << ", family " << operation.family << ", which " << operation.which << ")";
}

rc::Gen<std::vector<Operation>> operations() {
  using Kind = Operation::Kind;
  const auto full = [](uint32_t first, uint32_t end) {  // inRange shrinks its range with the size of a test case
    return rc::gen::resize(rc::kNominalSize, rc::gen::inRange(first, end));
  };
  return rc::gen::scale(
      2.0,
      rc::gen::container<std::vector<Operation>>(rc::gen::build<Operation>(
          rc::gen::set(&Operation::kind,
                       rc::gen::weightedElement<Kind>(
                           {{4, Kind::kOpen}, {8, Kind::kPlan}, {8, Kind::kAnswer}, {1, Kind::kClose}})),
          rc::gen::set(&Operation::prompt_tokens, full(1, 80)), rc::gen::set(&Operation::output_tokens, full(1, 100)),
          rc::gen::set(&Operation::family, full(0, 3)), rc::gen::set(&Operation::which, full(0, kSequences)))));
}

// An engine driven by operations that checks every answer against the reference.
class Driver {
 public:
  explicit Driver(uint32_t growth_margin)
      : cache_({.layout = {.layer_count = 1, .kv_heads = 1, .head_dim = 2, .block_tokens = kBlockTokens},
                .model = {},
                .encoding = {.numerics = NumericsClass{1}},
                .slot_count = kSlots}),
        engine_({.limits = {.tokens_max = 24, .chunk_tokens = 20, .sequences_max = kSequences},
                 .max_model_len = 200,
                 .growth_margin = growth_margin},
                cache_),
        executor_(kSlots, kBlockTokens) {}

  void apply(const Operation& operation) {
    using Kind = Operation::Kind;
    if (operation.kind == Kind::kOpen) open(operation);
    if (operation.kind == Kind::kPlan) plan();
    if (operation.kind == Kind::kAnswer && in_flight_) answer(executor_.run(*in_flight_));
    if (operation.kind == Kind::kClose && !open_.empty()) close(operation.which % open_.size());
    engine_.check_conservation();
    RC_ASSERT(engine_.open_sequences() == open_.size());
  }
  // With nobody closing, everything ends: no sequence waits for ever.
  void drain() {
    for (int steps = 0; !open_.empty(); ++steps) {
      RC_ASSERT(steps < 1000);
      if (!in_flight_) plan();
      RC_ASSERT(in_flight_.has_value());
      answer(executor_.run(*in_flight_));
    }
    if (in_flight_) answer(executor_.run(*in_flight_));  // of sequences closed meanwhile
    engine_.check_conservation();
    RC_ASSERT(cache_.counts().held == 0u);
    RC_ASSERT(cache_.available() == kSlots);
    RC_ASSERT(engine_.sequences_free() == kSequences);
    RC_ASSERT(engine_.queued_prompt_tokens() == 0u);
  }
  uint64_t preemptions() const { return engine_.counters().preemptions; }
  const std::vector<StepPlan>& plans() const { return plans_; }
  uint32_t cached_tokens() const { return cached_tokens_; }
  uint64_t evictions() const { return cache_.counts().evictions; }

 private:
  struct Open {
    SequenceId sequence{};
    std::vector<TokenId> expected;
    uint32_t seen = 0;
  };

  void open(const Operation& operation) {
    std::vector<TokenId> prompt(operation.prompt_tokens);
    for (uint32_t i = 0; i < prompt.size(); ++i) prompt[i] = i < 20 ? i : i + operation.family;  // families share 20
    const uint32_t reserve = operation.prompt_tokens + operation.output_tokens - 1;
    const bool row = engine_.sequences_free() > 0;
    const auto opened = engine_.open({.prompt = prompt,
                                      .reserve_tokens = reserve,
                                      .reuse_tokens_max = operation.prompt_tokens - 1,
                                      .sampling = {.seed = operation.family},
                                      .tenant = {}});
    if (!opened) {
      RC_ASSERT(opened.error().code == ErrorCode::kNoSpace);
      RC_ASSERT(!row || engine_.preempted() > 0 || cache_.available() < cache_.config().layout.blocks_for(reserve));
      return;
    }
    RC_ASSERT(row);
    cached_tokens_ += engine_.sequence(*opened).cached_tokens;
    engine_.begin_prefill(*opened);
    open_.push_back({*opened, fake_reference(prompt, operation.output_tokens, operation.family)});
  }
  void plan() {
    auto planned = engine_.plan();
    RC_ASSERT(planned.has_value() == (!in_flight_ && !open_.empty()));
    if (!planned) return;
    RC_ASSERT(planned->tokens.size() <= 24u && planned->shares.size() <= kSequences);
    for (const StepShare& share : planned->shares) {
      for (uint32_t position = share.position_first; position < share.position_first + share.token_count; ++position) {
        // A step writes only where one sequence alone looks.
        const SlotId slot = planned->blocks[share.block_first + position / kBlockTokens];
        RC_ASSERT(!cache_.pool().is_cached(slot) && cache_.pool().count(slot, PinKind::kOwner) == 1u);
      }
    }
    in_flight_ = plans_.emplace_back(std::move(*planned));
  }
  void answer(const StepDone& done) {
    std::vector<EngineToken> tokens;
    engine_.on(done, tokens);
    in_flight_.reset();
    for (const EngineToken& token : tokens) {
      const auto owner = std::ranges::find(open_, token.sequence, &Open::sequence);
      RC_ASSERT(owner != open_.end());  // never a token of a closed sequence
      RC_ASSERT(token.index == owner->seen++);
      RC_ASSERT(token.token == owner->expected[token.index]);
      if (owner->seen == owner->expected.size()) close(static_cast<size_t>(owner - open_.begin()));
    }
  }
  void close(size_t index) {
    engine_.close(open_[index].sequence);
    open_.erase(open_.begin() + static_cast<ptrdiff_t>(index));
  }

  KvCache cache_;
  Engine engine_;
  FakeExecutor executor_;
  std::vector<Open> open_;
  std::vector<StepPlan> plans_;
  std::optional<StepPlan> in_flight_;
  uint32_t cached_tokens_ = 0;
};

rc::Gen<uint32_t> margins() { return rc::gen::element(0u, 8u, 32u, std::numeric_limits<uint32_t>::max()); }

RC_GTEST_PROP(Engine, ConservesBlocksAndGivesTheRightTokensOverAnyOperations, ()) {
  const auto script = *operations();
  Driver driver(*margins());
  for (const Operation& operation : script) driver.apply(operation);
  driver.drain();
  RC_CLASSIFY(driver.cached_tokens() > 0, "prefix hits");
  RC_CLASSIFY(driver.evictions() > 0, "evictions");
  RC_CLASSIFY(driver.preemptions() > 0, "preemptions");
}

RC_GTEST_PROP(Engine, SameCallsGiveTheSamePlans, ()) {
  const auto script = *operations();
  const uint32_t margin = *margins();
  Driver first(margin), second(margin);
  for (const Operation& operation : script) {
    first.apply(operation);
    second.apply(operation);
  }
  RC_ASSERT(first.plans().size() == second.plans().size());
  for (size_t i = 0; i < first.plans().size(); ++i) {
    RC_ASSERT(first.plans()[i].step == second.plans()[i].step);
    RC_ASSERT(same_content(first.plans()[i], second.plans()[i]));
  }
}

}  // namespace
}  // namespace spillway
