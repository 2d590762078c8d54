#include "model/step_threads.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/check.h"

namespace spillway {
namespace {

std::string counted(uint32_t count, const char* what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

std::string phase_text(const StepThreads::Phase& phase) {
  std::string others;
  const StepThreads::Tried* chosen = nullptr;
  for (const StepThreads::Tried& one : phase.tried) {
    if (one.threads == phase.threads)
      chosen = &one;
    else
      others += fmt::format("; {}: {:.3g}", one.threads, milliseconds(one.layer));
  }
  const std::string threads = counted(phase.threads, "thread");
  if (chosen == nullptr) return threads;
  return fmt::format("{}: {} ({:.3g} ms a layer{})", counted(phase.rows, "row"), threads, milliseconds(chosen->layer),
                     others);
}

}  // namespace

StepThreads::StepThreads(std::vector<Phase> phases) : phases_(std::move(phases)) {
  CHECK(!phases_.empty() && std::ranges::is_sorted(phases_, {}, &Phase::rows));
}

uint32_t StepThreads::of(uint32_t rows) const {
  size_t at = 0;
  while (at + 1 < phases_.size() && uint64_t{rows} * rows >= uint64_t{phases_[at].rows} * phases_[at + 1].rows) ++at;
  return phases_[at].threads;
}

std::string StepThreads::text() const {
  std::string text;
  for (const Phase& phase : phases_) text += (text.empty() ? "" : "; ") + phase_text(phase);
  return text;
}

namespace {

Duration shortest_of(const std::vector<StepThreads::Tried>& tried) {
  CHECK(!tried.empty());
  return std::ranges::min(tried, {}, &StepThreads::Tried::layer).layer;
}

}  // namespace

uint32_t most_good_threads(const std::vector<StepThreads::Tried>& tried) {
  const Duration shortest = shortest_of(tried);
  uint32_t most = 0;
  for (const StepThreads::Tried& one : tried)
    if (one.layer <= shortest + shortest / 10) most = std::max(most, one.threads);
  return most;
}

uint32_t fewest_good_threads(const std::vector<StepThreads::Tried>& tried) {
  const Duration shortest = shortest_of(tried);
  uint32_t fewest = UINT32_MAX;
  for (const StepThreads::Tried& one : tried)
    if (one.layer <= shortest + shortest / 20) fewest = std::min(fewest, one.threads);
  return fewest;
}

}  // namespace spillway
