// The slots of running sequences: they grow block by block, and where slots lack the youngest gives up its own
// (preemption by recompute; vLLM, Kwon et al. 2023, section 4.5). All in order of open().
#include <algorithm>

#include "common/check.h"
#include "engine/engine.h"

namespace spillway {

// What is taken for a sequence that has `tokens`, so that it grows in peace for a while.
uint32_t Engine::blocks_ahead(size_t tokens, uint32_t reserve_tokens) const {
  const uint64_t ahead = std::min<uint64_t>(uint64_t{tokens} + config_.growth_margin, reserve_tokens);
  return cache_.config().layout.blocks_for(static_cast<uint32_t>(ahead));
}

// Those that run or were preempted, the oldest first.
std::vector<SequenceId> Engine::by_age() const {
  std::vector<SequenceId> ages;
  for (uint32_t row = 0; row < rows_.size(); ++row) {
    const Sequence& sequence = rows_[row].sequence;
    if (rows_[row].used && (sequence.runs() || sequence.state == Sequence::State::kPreempted))
      ages.push_back(SequenceId{row});
  }
  std::ranges::sort(ages, {}, [&](SequenceId one) { return rows_[used_row(one)].sequence.arrival; });
  return ages;
}

// Every sequence that runs gets slots for all its rows or is preempted, and those preempted come back in their order
// as far as there is room. The oldest of all takes what it needs from any younger one, so it always moves (or waits
// for slots of reservations, which their owner asks back where nothing else holds any); hence each gets its turn.
void Engine::make_room() {
  const std::vector<SequenceId> ages = by_age();
  bool older_waits = false;
  for (const SequenceId id : ages) {
    Sequence& sequence = rows_[used_row(id)].sequence;
    if (sequence.state == Sequence::State::kPreempted) {
      if (older_waits) continue;
      bool resumed = resume(sequence);
      while (!resumed && id == ages.front() && preempt_youngest(ages, id)) resumed = resume(sequence);
      older_waits = !resumed;
      continue;
    }
    const uint32_t needed = cache_.config().layout.blocks_for(static_cast<uint32_t>(sequence.tokens.size()));
    while (sequence.runs() && sequence.blocks.size() < needed) {
      if (cache_.reserve(needed - static_cast<uint32_t>(sequence.blocks.size()), sequence.blocks)) break;
      CHECK(preempt_youngest(ages, id));  // itself at the latest
    }
    // Its own copies may have kept cached ones in place, as the prefix of a block it held: without them it may fit.
    if (!sequence.runs()) older_waits = older_waits || !resume(sequence);
  }
}

// False: none that runs is as young as `for_whom`.
bool Engine::preempt_youngest(std::span<const SequenceId> ages, SequenceId for_whom) {
  for (size_t index = ages.size(); index > 0; --index) {
    Sequence& sequence = rows_[used_row(ages[index - 1])].sequence;
    if (sequence.runs()) {
      sequence.blocks.clear();  // sealed ones stay as cache
      sequence.sealed_blocks = sequence.computed_tokens = 0;
      sequence.state = Sequence::State::kPreempted;
      ++counters_.preemptions;
      return true;
    }
    if (ages[index - 1] == for_whom) return false;
  }
  return false;
}

// Takes what is still cached, and slots for the rest. What comes back was computed here, in this cache's own class.
bool Engine::resume(Sequence& sequence) {
  const KvCacheConfig& kv = cache_.config();
  const size_t tokens = sequence.tokens.size();
  // What others computed of a prompt that is scored was scored for them, if at all.
  const size_t known = sequence.score_prompt ? sequence.computed_most : tokens - 1;
  const size_t reusable = std::min(sequence.keys.size(), std::min(known, tokens - 1) / kv.layout.block_tokens);
  std::vector<SlotPin> blocks = cache_.match(std::span(sequence.keys).first(reusable), sequence.tokens);
  const auto cached = static_cast<uint32_t>(blocks.size());
  if (!cache_.reserve(blocks_ahead(tokens, sequence.reserve_tokens) - cached, blocks)) return false;
  sequence.blocks = std::move(blocks);
  sequence.sealed_blocks = cached;
  sequence.computed_tokens = cached * kv.layout.block_tokens;
  sequence.encoding = kv.encoding;
  sequence.state = Sequence::State::kPrefilling;
  return true;
}

void Engine::check_oldest_moves(const std::vector<BatchRow>& batch) const {
  CHECK(std::ranges::find(batch, by_age().front(), &BatchRow::sequence) != batch.end());
}

uint32_t Engine::preempted() const {
  return static_cast<uint32_t>(std::ranges::count_if(
      rows_, [](const Row& row) { return row.used && row.sequence.state == Sequence::State::kPreempted; }));
}

}  // namespace spillway
