#include "gateway/queue_pace.h"

#include <algorithm>
#include <cmath>

namespace spillway {
namespace {

constexpr size_t kSamplesMax = 11;
constexpr auto kApart = std::chrono::seconds(1);
constexpr double kWaitMaxS = 60;

}  // namespace

void QueuePace::observe(TimePoint now, uint64_t finished, uint32_t queued) {
  last_ = {now, finished};
  queued_ = queued;
  if (!samples_.empty() && now - samples_.back().at < kApart) return;
  samples_.push_back(last_);
  if (samples_.size() > kSamplesMax) samples_.pop_front();
}

unsigned QueuePace::drains_in_s() const {
  if (queued_ == 0) return 1;
  const uint64_t finished = last_.finished - samples_.front().finished;
  if (finished == 0) return static_cast<unsigned>(kWaitMaxS);
  const double wait = queued_ * seconds(last_.at - samples_.front().at) / static_cast<double>(finished);
  return static_cast<unsigned>(std::clamp(std::ceil(wait), 1.0, kWaitMaxS));
}

}  // namespace spillway
