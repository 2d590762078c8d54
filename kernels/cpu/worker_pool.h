#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "common/clock.h"
#include "common/cpu_list.h"
#include "common/thread.h"

namespace spillway::cpu {

// Threads that share the iterations of a loop. One owner thread calls parallel_for and takes part; with one thread no
// other exists. After a loop workers look for the next one for a few microseconds (the next operation of a forward pass
// comes that soon), then park. How long each looks it learns: it is halved when nothing came and doubled when something
// did, so on a busy machine, where a loop waits for a thread that another process keeps off its core, and where there
// are more threads than cores, no core is spent on looking. A loop does not wait for workers that wake too late to take
// part. Which thread runs an iteration is left to chance: bodies must not let it change a result.
class WorkerPool {
 public:
  // REQUIRES 1 <= threads <= kThreadsMax. Where `cpus` are as many, worker i runs on cpus[i] only, and the owner on
  // cpus[0] from pin_owner() on; else nothing is pinned. SetupError when the system gives no thread or a worker may not
  // run on its cpu; those had till then are joined.
  explicit WorkerPool(uint32_t threads, const CpuList& cpus = {});
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  static constexpr uint32_t kThreadsMax = 256;
  uint32_t thread_count() const { return static_cast<uint32_t>(workers_.size()) + 1; }
  // Loops from here on are shared by at most `count` threads; the others stay parked. Owner thread, between loops.
  // REQUIRES 1 <= count <= thread_count().
  void use_threads(uint32_t count);
  uint32_t used_threads() const { return used_; }  // owner, or a body
  void pin_owner() const;                          // the calling thread
  // Each thread, the calling one included, keeps to a CPU, of as many cores as there are, until told otherwise: then
  // they run where the calling one might before. On a virtual machine Linux holds a CPU that sleeps for one that the
  // host has taken away, and wakes a worker on its owner's: which of the two it meets is chance, and is not to decide
  // what is measured. Of a pinned pool this holds the owner. Owner thread, between loops.
  void hold_apart(bool apart);
  bool pinned() const { return !cpus_.empty(); }

  // Runs body(index, thread) once for every index < count, thread < thread_count(); returns when all are finished.
  // Indices are taken in ascending order. Bodies must not throw, nor call parallel_for.
  template <class Body>
  void parallel_for(uint32_t count, const Body& body) {
    run(count, &body, [](const void* context, uint32_t index, uint32_t thread) {
      (*static_cast<const Body*>(context))(index, thread);
    });
  }

 private:
  using Task = void (*)(const void* context, uint32_t index, uint32_t thread);
  // How long a thread looks before it parks.
  struct Patience {
    Duration now, most;  // most is 0 where looking would keep off the core whom it waits for
    template <class Ready>
    bool look_for(const Ready& ready);
  };
  struct Worker {
    explicit Worker(const Patience& at_first) : patience(at_first) {}
    Patience patience;  // its thread's alone
    std::atomic<bool> parked{false};
    std::condition_variable loop_opened;
    std::unique_ptr<Thread> thread;
  };
  WorkerPool(const CpuList& cpus, uint32_t threads);
  void run(uint32_t count, const void* context, Task task);
  void wake(uint32_t threads);
  void take_indices(uint32_t thread);
  void work(uint32_t thread, Worker& self);
  bool wait_for_loop(uint32_t thread, Worker& self, uint64_t last_loop);  // false: the pool ends
  bool enter(uint32_t thread, uint64_t last_loop);
  bool is_open_to(uint32_t thread, uint64_t gate, uint64_t last_loop) const;
  void leave();

  const CpuList cpus_;  // empty: not pinned
  CpuList cpus_apart_;  // of each thread, as chosen when they were first held apart
  CpuList cpus_free_;   // while held apart: those of the owner before
  Patience owner_patience_;
  uint32_t used_ = 1;  // threads of the loops from here on

  // The current loop; written by the owner only while gate_ is closed and nobody is inside.
  Task task_ = nullptr;
  const void* context_ = nullptr;
  uint32_t count_ = 0;
  std::atomic<uint32_t> next_index_{0};
  std::atomic<uint32_t> width_{1};  // threads that may take part

  // Loop number << 32 | open bit | workers inside.
  std::atomic<uint64_t> gate_{0};
  std::atomic<bool> owner_parked_{false};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable last_left_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace spillway::cpu
