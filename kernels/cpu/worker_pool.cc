#include "kernels/cpu/worker_pool.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "common/check.h"
#include "common/cores.h"
#include "kernels/cpu/processor.h"

namespace spillway::cpu {
namespace {

constexpr uint64_t kOpen = uint64_t{1} << 31;
constexpr uint64_t kInside = kOpen - 1;
constexpr Duration kPatienceMost = std::chrono::microseconds(50), kPatienceLeast = std::chrono::microseconds(2);

uint64_t loop_of(uint64_t gate) { return gate >> 32; }

}  // namespace

// The clock is read only now and then: it costs as much as a poll.
template <class Ready>
bool WorkerPool::Patience::look_for(const Ready& ready) {
  if (ready()) return true;
  if (most == Duration::zero()) return false;
  const TimePoint end = steady_now() + now;
  do {
    for (int i = 0; i < 32; ++i) {
      pause_before_next_look();
      if (!ready()) continue;
      now = std::min(most, now * 2);
      return true;
    }
  } while (steady_now() < end);
  now = std::max(kPatienceLeast, now / 2);
  return false;
}

WorkerPool::WorkerPool(const CpuList& cpus, uint32_t threads)
    : cpus_(cpus.size() == threads ? cpus : CpuList()),
      owner_patience_{kPatienceMost, threads > available_cores() ? Duration::zero() : kPatienceMost},
      used_(threads) {}

// Delegates, so that the destructor stops the workers already there when one more cannot be had.
WorkerPool::WorkerPool(uint32_t threads, const CpuList& cpus) : WorkerPool(cpus, threads) {
  CHECK(threads >= 1 && threads <= kThreadsMax);
  if (!cpus_.empty()) check_allowed(cpus_);
  for (uint32_t thread = 1; thread < threads; ++thread) {
    Worker& worker = *workers_.emplace_back(std::make_unique<Worker>(owner_patience_));
    try {
      worker.thread =
          std::make_unique<Thread>(fmt::format("worker {}", thread), [this, thread, &worker] { work(thread, worker); });
    } catch (const std::system_error& error) {
      throw SetupError(
          fmt::format("cannot start compute thread {} of {}: {}; lower --threads, or raise the limits on "
                      "processes and memory (ulimit -u, ulimit -v)",
                      thread + 1, threads, error.what()));
    }
  }
}

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_.store(true);
  }
  for (const auto& worker : workers_) worker->loop_opened.notify_one();
}

void WorkerPool::use_threads(uint32_t count) {
  CHECK(count >= 1 && count <= thread_count());
  used_ = count;
}

void WorkerPool::pin_owner() const {
  if (!cpus_.empty()) run_on({cpus_.front()});
}

void WorkerPool::hold_apart(bool apart) {
  if (apart != cpus_free_.empty()) return;
  if (cpus_apart_.empty())
    cpus_apart_ = pinned() ? cpus_ : cores_first(allowed_cpus(), static_cast<uint32_t>(::sched_getcpu()));
  const CpuList free = apart ? allowed_cpus() : std::exchange(cpus_free_, {});
  const auto place = [&](uint32_t thread, pthread_t handle) {  // fails only if CPUs went: then it is where it may be
    (void)try_run_on(apart ? CpuList{cpus_apart_[thread % cpus_apart_.size()]} : free, handle);
  };
  place(0, ::pthread_self());
  for (uint32_t thread = 1; !pinned() && thread < thread_count(); ++thread)
    place(thread, workers_[thread - 1]->thread->handle());
  if (apart) cpus_free_ = free;
}

void WorkerPool::run(uint32_t count, const void* context, Task task) {
  const uint32_t width = std::min(used_, count);
  if (width <= 1) {
    for (uint32_t index = 0; index < count; ++index) task(context, index, 0);
    return;
  }
  task_ = task;
  context_ = context;
  count_ = count;
  next_index_.store(0, std::memory_order_relaxed);
  width_.store(width, std::memory_order_relaxed);
  // Sequentially consistent, as is a worker's `parked` before it looks at the gate: one of the two sees the other.
  gate_.store((loop_of(gate_.load(std::memory_order_relaxed)) + 1) << 32 | kOpen);
  wake(width);
  take_indices(0);
  gate_.fetch_and(~kOpen);
  const auto all_left = [this] { return (gate_.load() & kInside) == 0; };
  if (owner_patience_.look_for(all_left)) return;
  std::unique_lock lock(mutex_);
  owner_parked_.store(true);
  last_left_.wait(lock, all_left);
  owner_parked_.store(false);
}

void WorkerPool::wake(uint32_t threads) {
  bool locked = false;
  for (uint32_t thread = 1; thread < threads; ++thread) {
    Worker& worker = *workers_[thread - 1];
    if (!worker.parked.load()) continue;
    if (!locked) {
      const std::lock_guard lock(mutex_);
    }
    locked = true;
    worker.loop_opened.notify_one();
  }
}

void WorkerPool::take_indices(uint32_t thread) {
  const uint32_t count = count_;
  for (uint32_t index = next_index_.fetch_add(1, std::memory_order_relaxed); index < count;
       index = next_index_.fetch_add(1, std::memory_order_relaxed)) {
    task_(context_, index, thread);
  }
}

// `gate` was read before: the width is that loop's, or the gate has moved on and enter() will notice.
bool WorkerPool::is_open_to(uint32_t thread, uint64_t gate, uint64_t last_loop) const {
  return (gate & kOpen) != 0 && loop_of(gate) != last_loop && thread < width_.load(std::memory_order_relaxed);
}

bool WorkerPool::enter(uint32_t thread, uint64_t last_loop) {
  uint64_t gate = gate_.load();
  while (is_open_to(thread, gate, last_loop)) {
    if (gate_.compare_exchange_weak(gate, gate + 1)) return true;
  }
  return false;
}

void WorkerPool::leave() {
  const uint64_t before = gate_.fetch_sub(1);
  if ((before & kInside) == 1 && owner_parked_.load()) {
    { const std::lock_guard lock(mutex_); }
    last_left_.notify_one();
  }
}

bool WorkerPool::wait_for_loop(uint32_t thread, Worker& self, uint64_t last_loop) {
  const auto opened = [&] {
    return stopping_.load(std::memory_order_relaxed) || is_open_to(thread, gate_.load(), last_loop);
  };
  if (!self.patience.look_for(opened)) {
    std::unique_lock lock(mutex_);
    self.parked.store(true);
    self.loop_opened.wait(lock, opened);
    self.parked.store(false);
  }
  return !stopping_.load();
}

void WorkerPool::work(uint32_t thread, Worker& self) {
  if (!cpus_.empty()) run_on({cpus_[thread]});
  const FlushDenormals flush;
  uint64_t last_loop = 0;
  while (wait_for_loop(thread, self, last_loop)) {
    if (!enter(thread, last_loop)) continue;
    last_loop = loop_of(gate_.load(std::memory_order_relaxed));  // cannot move on while this worker is inside
    take_indices(thread);
    leave();
  }
}

}  // namespace spillway::cpu
