#pragma once

#include <string>

#include "common/clock.h"
#include "common/unique_fd.h"

namespace spillway {

// The nodes of one run measure their threads one after the other: at the same moment each would find the cores busy
// with the other's. Holds a lock (flock) of the run folder itself as long as it lives. Waits for it no longer than
// `longest`: a turn that does not come makes the measurement worse, never the start impossible.
class CalibrationTurn {
 public:
  explicit CalibrationTurn(const std::string& run_dir, Duration longest = std::chrono::seconds(2));
  bool came() const { return came_; }

 private:
  UniqueFd folder_;
  bool came_ = false;
};

}  // namespace spillway
