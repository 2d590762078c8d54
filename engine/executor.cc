#include "engine/executor.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <span>
#include <utility>

#include "common/check.h"
#include "common/clock.h"
#include "engine/layer_gates.h"

namespace spillway {
namespace {

constexpr size_t kInboxCapacity = 2;  // one step in flight and kStop

}  // namespace

Executor::Executor(Backend& backend, Decoder& decoder, const SlotArena& kv, const Limits& limits,
                   Mailbox<ComputeEvent>& events, StepFault fault)
    : backend_(backend),
      decoder_(decoder),
      kv_(kv),
      limits_(limits),
      events_(events),
      fault_(fault),
      block_table_{
          .data =
              backend.allocate(size_t{limits.sequences_max} * limits.blocks_per_sequence_max * sizeof(uint32_t)).data(),
          .type = DataType::kU32,
          .shape = {limits.sequences_max, limits.blocks_per_sequence_max, 1}},
      inbox_(kInboxCapacity, waker_),
      thread_("compute", [this] { run(); }) {
  CHECK(limits.tokens_max <= decoder.rows_max() && limits.sequences_max <= decoder.logit_rows_max());
  CHECK(events.capacity() > decoder.config().layer_count);
}

Executor::~Executor() { inbox_.push({}); }

void Executor::submit(StepPlan plan) { inbox_.push({.kind = Command::Kind::kStep, .plan = std::move(plan)}); }

void Executor::run() {
  backend_.enter_compute_thread();
  for (;;) {
    const std::optional<Command> command = inbox_.take();
    if (!command) {
      waker_.wait(-1);
      continue;
    }
    if (command->kind == Command::Kind::kStop) return;
    events_.push(execute(command->plan));
  }
}

StepDone Executor::execute(const StepPlan& plan) {
  const TimePoint start = steady_now();
  if (fault_.points != nullptr) fault_.points->pass(fault_.name);
  lay_out(plan);
  const TokenBatch batch{
      .tokens = plan.tokens, .spans = spans_, .block_table = block_table_, .logit_rows = logit_rows_};
  ResidentGate resident;
  AnnouncingGate announcing(plan.step, backend_, events_);
  LayerGate& gate = plan.announce_layers ? static_cast<LayerGate&>(announcing) : resident;
  const std::optional<TensorView> logits = decoder_.forward(batch, kv_, gate);
  CHECK(logits);  // neither gate gives up
  sample(plan, *logits);
  StepDone done{.step = plan.step, .sampled = sampled(plan, samples_), .elapsed = {}, .scored = scored(plan, samples_)};
  done.elapsed = steady_now() - start;
  return done;
}

void Executor::lay_out(const StepPlan& plan) {
  CHECK(!plan.tokens.empty() && plan.tokens.size() <= limits_.tokens_max);
  CHECK(plan.shares.size() <= limits_.sequences_max);
  spans_.clear();
  logit_rows_.clear();
  samples_.clear();
  for (const StepShare& share : plan.shares) {
    const auto table_row = static_cast<uint32_t>(spans_.size());
    CHECK(share.token_count > 0 && share.block_count <= limits_.blocks_per_sequence_max);
    CHECK(uint64_t{share.block_first} + share.block_count <= plan.blocks.size());
    CHECK(share.block_count >= kv_.layout.blocks_for(share.position_first + share.token_count));
    uint32_t* table = block_table_.as<uint32_t>() + size_t{table_row} * limits_.blocks_per_sequence_max;
    for (uint32_t block = 0; block < share.block_count; ++block) {
      const auto slot = static_cast<uint32_t>(plan.blocks[share.block_first + block]);
      CHECK(slot < kv_.slot_count);
      table[block] = slot;
    }
    spans_.push_back({.row_first = share.token_first,
                      .row_count = share.token_count,
                      .position_first = share.position_first,
                      .block_table_row = table_row});
    CHECK(share.score_count <= share.token_count);
    for (uint32_t row = 0; row < share.score_count; ++row) {
      const bool last = row + 1 == share.token_count;
      logit_rows_.push_back(share.token_first + row);
      samples_.push_back({.logprob_count = share.logprob_count,
                          .given = true,
                          .token = last ? share.after : plan.tokens[share.token_first + row + 1]});
    }
    if (!share.samples) continue;
    CHECK(share.score_count < share.token_count);
    logit_rows_.push_back(share.token_first + share.token_count - 1);
    samples_.push_back(sample_row(plan, share));
  }
}

// What a broken kernel or a torn weight would leave. `logits` are the rows from `first` on.
void Executor::poison(const StepPlan& plan, const TensorView& logits, size_t first) {
  size_t row = 0;
  for (const StepShare& share : plan.shares) {
    row += share.score_count;
    if (!share.samples) continue;
    const size_t at = row++;
    if (!share.poisoned || at < first || at - first >= logits.shape[0]) continue;
    const std::span<float> values(logits.as<float>() + (at - first) * logits.shape[1], logits.shape[1]);
    std::ranges::fill(values, std::numeric_limits<float>::quiet_NaN());
  }
}

// The decoder gives as many rows of logits at a time as it has memory for.
void Executor::sample(const StepPlan& plan, TensorView logits) {
  for (size_t first = 0; first < samples_.size();) {
    poison(plan, logits, first);
    const std::span<SampleRow> rows = std::span(samples_).subspan(first, logits.shape[0]);
    backend_.sample({.logits = logits, .rows = rows});
    CHECK(backend_.reached(backend_.record()));
    first += rows.size();
    if (first < samples_.size()) logits = decoder_.logits_from(checked_cast<uint32_t>(first));
  }
}

std::vector<SampledToken> Executor::sampled(const StepPlan& plan, std::span<const SampleRow> rows) {
  std::vector<SampledToken> sampled;
  size_t next = 0;
  for (const StepShare& share : plan.shares) {
    next += share.score_count;
    if (!share.samples) continue;
    const SampleRow& row = rows[next++];
    sampled.push_back({.sequence = share.sequence,
                       .token = row.token,
                       .logits_digest = row.logits_digest,
                       .finite = row.finite,
                       .logprobs = row.logprobs});
  }
  return sampled;
}

std::vector<ScoredTokens> Executor::scored(const StepPlan& plan, std::span<const SampleRow> rows) {
  std::vector<ScoredTokens> scored;
  size_t next = 0;
  for (const StepShare& share : plan.shares) {
    if (share.score_count > 0) {
      ScoredTokens& one = scored.emplace_back();
      one.sequence = share.sequence;
      one.position_first = share.position_first + 1;
      one.logprob_count = share.logprob_count;
      for (const SampleRow& row : rows.subspan(next, share.score_count)) {
        one.finite = one.finite && row.finite;
        one.logprobs.insert(one.logprobs.end(), row.logprobs.begin(), row.logprobs.end());
      }
    }
    next += share.score_count + (share.samples ? 1 : 0);
  }
  return scored;
}

}  // namespace spillway
