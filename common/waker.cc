#include "common/waker.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <cstdint>

#include "common/check.h"

namespace spillway {

EventFdWaker::EventFdWaker() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!fd_) throw SetupError("cannot create an eventfd: raise the open file limit (ulimit -n)");
}

void EventFdWaker::wake() {
  const uint64_t one = 1;
  // EAGAIN means the counter is already at its top: the sleeper will wake.
  [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one, sizeof one);
}

void EventFdWaker::drain() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t taken = ::read(fd_.get(), &count, sizeof count);
}

void EventFdWaker::wait(int timeout_ms) {
  pollfd entry{fd_.get(), POLLIN, 0};
  ::poll(&entry, 1, timeout_ms);
  drain();
}

}  // namespace spillway
