#pragma once

#include <string>

#include "common/clock.h"
#include "common/unique_fd.h"

namespace spillway {

// The processes of one run load side by side; its nodes measure their threads after that, one after the other: else
// each would find the cores busy with another's work. Both are locks (flock) of the run folder itself, held as long as
// these live. A process holds one of them at a time.

// Shared by all that load. Does not wait: who loads while a node measures (it was restarted) loads all the same.
class LoadingShare {
 public:
  explicit LoadingShare(const std::string& run_dir);

 private:
  UniqueFd folder_;
};

// Waits for all who load and for other turns, no longer than `longest`: a turn that does not come makes this
// measurement and another's worse, which is logged, never the start impossible.
class CalibrationTurn {
 public:
  explicit CalibrationTurn(const std::string& run_dir, Duration longest = std::chrono::seconds(10));
  bool came() const { return came_; }

 private:
  UniqueFd folder_;
  bool came_ = false;
};

}  // namespace spillway
