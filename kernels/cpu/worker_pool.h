#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "common/thread.h"

namespace spillway::cpu {

// Sets flush-to-zero and denormals-are-zero for this thread and puts the old mode back: every operation and every
// worker computes in this mode, so a result does not depend on the thread that computed it.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  uint32_t saved_;
};

// Threads that share the iterations of a loop. One owner thread calls parallel_for and takes part; with one thread no
// other exists. Workers spin for about 50 us after a loop (the next operation of a forward pass comes sooner), then
// park. A loop does not wait for workers that wake too late to take part. Which thread runs an iteration is left to
// chance: bodies must not let it change a result.
class WorkerPool {
 public:
  // REQUIRES 1 <= threads <= kThreadsMax. SetupError when the system gives no thread; those had till then are joined.
  explicit WorkerPool(uint32_t threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  static constexpr uint32_t kThreadsMax = 256;
  uint32_t thread_count() const { return static_cast<uint32_t>(workers_.size()) + 1; }

  // Runs body(index, thread) once for every index < count, thread < thread_count(); returns when all are finished.
  // Indices are taken in ascending order. Bodies must not throw, nor call parallel_for.
  template <class Body>
  void parallel_for(uint32_t count, const Body& body) {
    run(count, &body, [](const void* context, uint32_t index, uint32_t thread) {
      (*static_cast<const Body*>(context))(index, thread);
    });
  }

 private:
  WorkerPool() = default;
  using Task = void (*)(const void* context, uint32_t index, uint32_t thread);
  void run(uint32_t count, const void* context, Task task);
  void take_indices(uint32_t thread);
  void work(uint32_t thread);
  bool wait_for_loop(uint64_t last_loop);  // false: the pool ends
  bool enter(uint64_t last_loop);
  void leave();

  // The current loop; written by the owner only while gate_ is closed and nobody is inside.
  Task task_ = nullptr;
  const void* context_ = nullptr;
  uint32_t count_ = 0;
  std::atomic<uint32_t> next_index_{0};

  // Loop number << 32 | open bit | workers inside.
  std::atomic<uint64_t> gate_{0};
  std::atomic<uint32_t> parked_{0};
  std::atomic<bool> owner_parked_{false};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable loop_opened_, last_left_;
  std::vector<std::unique_ptr<Thread>> workers_;
};

}  // namespace spillway::cpu
