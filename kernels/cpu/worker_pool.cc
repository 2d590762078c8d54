#include "kernels/cpu/worker_pool.h"

#include <fmt/format.h>
#include <xmmintrin.h>

#include <system_error>

#include "common/check.h"
#include "common/clock.h"

namespace spillway::cpu {
namespace {

constexpr uint64_t kOpen = uint64_t{1} << 31;
constexpr uint64_t kInside = kOpen - 1;
constexpr uint32_t kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;  // MXCSR
constexpr Duration kSpin = std::chrono::microseconds(50);

uint64_t loop_of(uint64_t gate) { return gate >> 32; }

// Polls `ready` for about kSpin. The clock is read only now and then: it costs as much as the poll.
template <class Ready>
bool spin_until(const Ready& ready) {
  const TimePoint end = steady_now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      _mm_pause();
    }
  } while (steady_now() < end);
  return ready();
}

}  // namespace

FlushDenormals::FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | kFlushToZero | kDenormalsAreZero); }
FlushDenormals::~FlushDenormals() { _mm_setcsr(saved_); }

// Delegates, so that the destructor stops the workers already there when one more cannot be had.
WorkerPool::WorkerPool(uint32_t threads) : WorkerPool() {
  CHECK(threads >= 1 && threads <= kThreadsMax);
  for (uint32_t thread = 1; thread < threads; ++thread) {
    try {
      workers_.push_back(std::make_unique<Thread>(fmt::format("worker {}", thread), [this, thread] { work(thread); }));
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
  loop_opened_.notify_all();
}

void WorkerPool::run(uint32_t count, const void* context, Task task) {
  if (workers_.empty() || count <= 1) {
    for (uint32_t index = 0; index < count; ++index) task(context, index, 0);
    return;
  }
  task_ = task;
  context_ = context;
  count_ = count;
  next_index_.store(0, std::memory_order_relaxed);
  // Sequentially consistent, as is the worker's `parked_` before it looks at the gate: one of the two sees the other.
  gate_.store((loop_of(gate_.load(std::memory_order_relaxed)) + 1) << 32 | kOpen);
  if (parked_.load() > 0) {
    { const std::lock_guard lock(mutex_); }
    loop_opened_.notify_all();
  }
  take_indices(0);
  gate_.fetch_and(~kOpen);
  const auto all_left = [this] { return (gate_.load() & kInside) == 0; };
  if (spin_until(all_left)) return;
  std::unique_lock lock(mutex_);
  owner_parked_.store(true);
  last_left_.wait(lock, all_left);
  owner_parked_.store(false);
}

void WorkerPool::take_indices(uint32_t thread) {
  const uint32_t count = count_;
  for (uint32_t index = next_index_.fetch_add(1, std::memory_order_relaxed); index < count;
       index = next_index_.fetch_add(1, std::memory_order_relaxed)) {
    task_(context_, index, thread);
  }
}

bool WorkerPool::enter(uint64_t last_loop) {
  uint64_t gate = gate_.load();
  while ((gate & kOpen) != 0 && loop_of(gate) != last_loop) {
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

bool WorkerPool::wait_for_loop(uint64_t last_loop) {
  const auto opened = [this, last_loop] {
    const uint64_t gate = gate_.load();
    return stopping_.load(std::memory_order_relaxed) || ((gate & kOpen) != 0 && loop_of(gate) != last_loop);
  };
  if (!spin_until(opened)) {
    std::unique_lock lock(mutex_);
    parked_.fetch_add(1);
    loop_opened_.wait(lock, opened);
    parked_.fetch_sub(1);
  }
  return !stopping_.load();
}

void WorkerPool::work(uint32_t thread) {
  const FlushDenormals flush;
  uint64_t last_loop = 0;
  while (wait_for_loop(last_loop)) {
    if (!enter(last_loop)) continue;
    last_loop = loop_of(gate_.load(std::memory_order_relaxed));  // cannot move on while this worker is inside
    take_indices(thread);
    leave();
  }
}

}  // namespace spillway::cpu
