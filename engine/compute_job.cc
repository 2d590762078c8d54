#include "engine/compute_job.h"

#include <algorithm>
#include <span>

#include "common/check.h"

namespace spillway {

SampleRow sample_row(const StepPlan& plan, const StepShare& share) {
  CHECK(share.samples);
  SampleRow row = share.sample;
  if (!row.params.looks_back()) return row;
  CHECK(uint64_t{share.history_first} + row.position <= plan.history.size());
  row.history = std::span(plan.history).subspan(share.history_first, row.position);
  return row;
}

StepShare* first_sampled(StepPlan& plan) {
  const auto first = std::ranges::find(plan.shares, true, &StepShare::samples);
  return first == plan.shares.end() ? nullptr : &*first;
}

}  // namespace spillway
