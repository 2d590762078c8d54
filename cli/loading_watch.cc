#include "cli/loading_watch.h"

#include "cli/drain.h"
#include "common/leftover_files.h"
#include "common/log.h"

namespace spillway {

LoadingWatch::LoadingWatch() : thread_("loading-watch", [this] { watch(); }) {}

LoadingWatch::~LoadingWatch() {
  loaded_ = true;
  waker_.wake();
}

void LoadingWatch::watch() {
  while (!loaded_ && signals_.count() == 0) waker_.wait(-1);
  // From here on a signal is another thread's or, where that has blocked it too, waits for whoever takes it next:
  // counted by this thread after its last look it would be lost.
  block_stop_signals();
  if (signals_.count() == 0) return;
  spdlog::info("told to stop while it loaded: stopped");
  remove_own_unfinished_files();
  leave_now(0);
}

}  // namespace spillway
