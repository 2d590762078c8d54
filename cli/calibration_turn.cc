#include "cli/calibration_turn.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>

namespace spillway {
namespace {

constexpr int kLookAgainMs = 2;  // flock(2) knows no deadline

UniqueFd open_folder(const std::string& path) {
  return UniqueFd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

}  // namespace

LoadingShare::LoadingShare(const std::string& run_dir) : folder_(open_folder(run_dir)) {
  if (folder_) (void)::flock(folder_.get(), LOCK_SH | LOCK_NB);
}

CalibrationTurn::CalibrationTurn(const std::string& run_dir, Duration longest) : folder_(open_folder(run_dir)) {
  const TimePoint end = steady_now() + longest;
  while (folder_) {
    came_ = ::flock(folder_.get(), LOCK_EX | LOCK_NB) == 0;
    if (came_ || steady_now() >= end) return;
    ::poll(nullptr, 0, kLookAgainMs);
  }
}

}  // namespace spillway
