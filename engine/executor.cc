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
  StepDone done{.step = plan.step, .sampled = sample(plan, *logits), .elapsed = {}};
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
    if (!share.samples) continue;
    logit_rows_.push_back(share.token_first + share.token_count - 1);
    samples_.push_back(sample_row(plan, share));
  }
}

// What a broken kernel or a torn weight would leave.
void Executor::poison(const StepPlan& plan, const TensorView& logits) {
  size_t row = 0;
  for (const StepShare& share : plan.shares) {
    if (!share.samples) continue;
    const std::span<float> values(logits.as<float>() + row++ * logits.shape[1], logits.shape[1]);
    if (share.poisoned) std::ranges::fill(values, std::numeric_limits<float>::quiet_NaN());
  }
}

std::vector<SampledToken> Executor::sample(const StepPlan& plan, const TensorView& logits) {
  std::vector<SampledToken> sampled;
  if (samples_.empty()) return sampled;
  poison(plan, logits);
  backend_.sample({.logits = logits, .rows = samples_});
  CHECK(backend_.reached(backend_.record()));
  sampled.reserve(samples_.size());
  for (const StepShare& share : plan.shares) {
    if (!share.samples) continue;
    const SampleRow& row = samples_[sampled.size()];
    sampled.push_back(
        {.sequence = share.sequence, .token = row.token, .logits_digest = row.logits_digest, .finite = row.finite});
  }
  return sampled;
}

}  // namespace spillway
