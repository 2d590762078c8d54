#include "cli/drain.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "cli/exit_codes.h"
#include "common/log.h"

namespace spillway {
namespace {

constexpr Duration kReportEvery = std::chrono::seconds(3);

}  // namespace

Drain::Drain(EventFdWaker& waker, Duration limit) : signals_(waker), limit_(limit) {}

bool Drain::begins(TimePoint now) {
  if (draining_ || signals_.count() == 0) return false;
  draining_ = true;
  until_ = now + limit_;
  report_at_ = now + std::chrono::seconds(1);
  return true;
}

bool Drain::ends(bool drained, uint32_t requests, TimePoint now) {
  if (!draining_) return false;
  if (drained) {
    if (!cut_short_) spdlog::info("drained");
    return true;
  }
  cut_short_ = cut_short_ || signals_.count() > 1 || now >= until_;
  if (cut_short_) {
    spdlog::error("stops before it has drained: {} with {} requests unfinished",
                  signals_.count() > 1 ? "a second signal came"
                                       : fmt::format("--drain-timeout of {:.0f} s passed", seconds(limit_)),
                  requests);
    return true;
  }
  if (now >= report_at_) {
    report_at_ = now + kReportEvery;
    spdlog::info("draining requests={} seconds_left={:.0f}", requests, seconds(until_ - now));
  }
  return false;
}

bool Drain::told_again() {
  if (signals_.count() < 2) return false;
  spdlog::error("stops before its clients have read their answers: a second signal came");
  return cut_short_ = true;
}

TimePoint Drain::next_deadline() const { return std::min(until_, report_at_); }

int Drain::exit_code() const { return cut_short_ ? kExitCutShort : 0; }

void leave_now(int exit_code) {
  spdlog::default_logger()->flush();
  std::_Exit(exit_code);
}

}  // namespace spillway
