#include "simulator/simulated_executor.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace spillway {

SimulatedExecutor::SimulatedExecutor(const SyntheticModel& model, const SlotArena& arena, const Speed& speed,
                                     NumericsClass numerics)
    : model_(model), arena_(arena), speed_(speed), numerics_(numerics), computed_in_(arena.slot_count) {
  CHECK(arena.layout == model.layout);
}

void SimulatedExecutor::start(StepPlan plan, TimePoint now) {
  CHECK(!plan_);
  started_ = now;
  elapsed_ = speed_.per_step + speed_.per_token * static_cast<int64_t>(plan.tokens.size());
  layers_done_ = 0;
  plan_ = std::move(plan);
}

TimePoint SimulatedExecutor::next_event() const {
  if (!plan_) return kNever;
  // The classifier and the sampler take a layer's time.
  const int64_t shares = plan_->announce_layers ? layers_done_ + 1 : model_.layout.layer_count + 1;
  return std::max(started_ + elapsed_ * shares / (model_.layout.layer_count + 1), stalled_until_);
}

ComputeEvent SimulatedExecutor::advance() {
  CHECK(plan_);
  if (plan_->announce_layers && layers_done_ < model_.layout.layer_count) {
    append_layer(layers_done_);
    return LayerDone{plan_->step, layers_done_++};
  }
  for (; layers_done_ < model_.layout.layer_count; ++layers_done_) append_layer(layers_done_);
  return finish();
}

void SimulatedExecutor::note_class(const StepShare& share) {
  NumericsClass* before = nullptr;
  const uint32_t end = share.position_first + share.token_count;
  for (uint32_t position = share.position_first - (share.position_first > 0); position < end; ++position) {
    const SlotId slot = plan_->blocks[share.block_first + position / model_.layout.block_tokens];
    NumericsClass* const here = &computed_in_[static_cast<uint32_t>(slot)];
    if (position >= share.position_first)
      *here = before == nullptr || *before == numerics_ ? numerics_ : kNumericsMixed;
    before = here;
  }
}

void SimulatedExecutor::append_layer(uint16_t layer) {
  const uint32_t block_tokens = model_.layout.block_tokens;
  for (const StepShare& share : plan_->shares) {
    if (layer == 0) note_class(share);
    const auto part = [&](uint32_t position) {
      return arena_.parts(plan_->blocks[share.block_first + position / block_tokens], {layer, 1});
    };
    for (uint32_t index = 0; index < share.token_count; ++index) {
      const uint32_t position = share.position_first + index;
      const uint64_t before = position == 0 ? SyntheticModel::kFirstState
                                            : model_.read_row(part(position - 1), (position - 1) % block_tokens);
      model_.write_row(part(position), position % block_tokens,
                       SyntheticModel::next_state(before, plan_->tokens[share.token_first + index], layer));
    }
  }
}

SampledToken SimulatedExecutor::sample(const StepShare& share) const {
  uint64_t digest = 0;
  for (uint32_t block = 0; block < share.block_count; ++block) {
    for (uint16_t layer = 0; layer < model_.layout.layer_count; ++layer) {
      digest = SyntheticModel::fold(digest, arena_.parts(plan_->blocks[share.block_first + block], {layer, 1}));
    }
  }
  const TokenId token = SyntheticModel::sample(digest, sample_row(*plan_, share));
  return {share.sequence, token, share.sample.digest ? digest : 0, !share.poisoned};
}

StepDone SimulatedExecutor::finish() {
  StepDone done;
  done.step = plan_->step;
  done.elapsed = elapsed_;
  for (const StepShare& share : plan_->shares) {
    if (share.samples) done.sampled.push_back(sample(share));
  }
  plan_.reset();
  return done;
}

}  // namespace spillway
