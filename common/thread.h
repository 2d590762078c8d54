#pragma once

#include <pthread.h>

#include <functional>
#include <string>
#include <thread>

namespace spillway {

// A named thread that joins when destroyed. `body` must end by itself: its owner asks through a mailbox. An exception
// leaving `body` aborts with the thread's name.
class Thread {
 public:
  Thread(std::string name, std::function<void()> body);  // name: at most 15 characters, as the kernel keeps
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;
  ~Thread();
  pthread_t handle() { return thread_.native_handle(); }

 private:
  std::thread thread_;
};

}  // namespace spillway
