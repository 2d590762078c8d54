#include "common/thread.h"

#include <pthread.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <utility>

#include "common/check.h"

namespace spillway {

Thread::Thread(std::string name, std::function<void()> body) {
  CHECK(name.size() <= 15);
  thread_ = std::thread([name = std::move(name), body = std::move(body)] {
    ::pthread_setname_np(::pthread_self(), name.c_str());
    try {
      body();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "thread %s ended by an exception: %s\n", name.c_str(), error.what());
      std::abort();
    }
  });
}

Thread::~Thread() { thread_.join(); }

}  // namespace spillway
