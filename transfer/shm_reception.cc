#include "transfer/shm_reception.h"

#include <sys/epoll.h>

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace spillway {

void watch_input(int epoll, int fd) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP;
  event.data.fd = fd;
  CHECK(::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
}

ShmReception::ShmReception(const std::string& directory, uint32_t callers_max, Duration patience, int epoll)
    : callers_max_(callers_max), patience_(patience), epoll_(epoll), listener_(directory) {
  watch_input(epoll_, listener_.fd());
}

void ShmReception::look(TimePoint now) {
  while (UniqueFd socket = listener_.accept()) {
    if (callers_.size() >= callers_max_) continue;  // closes it
    watch_input(epoll_, socket.get());
    callers_.push_back({std::move(socket), now + patience_, std::nullopt});
  }
  std::erase_if(callers_, [&](Caller& caller) { return !read(caller); });
}

// False: it hung up or broke the rules.
bool ShmReception::read(Caller& caller) const {
  Result<std::optional<ShmGreeting>> greeting = receive_greeting(caller.socket.get());
  if (!greeting) return false;
  if (!*greeting) return true;
  if (caller.greeting || (*greeting)->token != endpoint().token) return false;
  caller.greeting = std::move(**greeting);
  return true;
}

std::optional<ShmCaller> ShmReception::take(std::span<const std::byte> endpoint) {
  // The newest: an older one of the same endpoint was given up by its peer.
  const auto found = std::find_if(callers_.rbegin(), callers_.rend(), [&](const Caller& caller) {
    return caller.greeting && std::ranges::equal(caller.greeting->endpoint, endpoint);
  });
  if (found == callers_.rend()) return std::nullopt;
  std::optional<ShmCaller> caller(ShmCaller{std::move(found->socket), std::move(*found->greeting)});
  callers_.erase(std::next(found).base());
  return caller;
}

void ShmReception::expire(TimePoint now) {
  std::erase_if(callers_, [&](const Caller& caller) { return caller.deadline <= now; });
}

}  // namespace spillway
