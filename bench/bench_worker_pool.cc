#include <benchmark/benchmark.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <new>
#include <vector>

#include "common/check.h"
#include "common/clock.h"
#include "kernels/cpu/worker_pool.h"

// What a loop over a WorkerPool costs by itself, alone and beside processes that never sleep, and what it leaves them:
// CPU is the time of all its threads, `beside` how far the others came a second. A third argument above 0 lets the
// owner do something alone between loops, while workers look for the next.
namespace spillway {
namespace {

void work_for(Duration duration) {
  const TimePoint end = steady_now() + duration;
  while (steady_now() < end) {
  }
}

// Processes that never sleep and count how far they come; gone with the object.
class BusyProcesses {
 public:
  explicit BusyProcesses(int64_t count) {
    void* const memory = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    turns_ = new (memory) std::atomic<uint64_t>(0);
    for (int64_t i = 0; i < count; ++i) {
      const pid_t pid = ::fork();
      CHECK(pid >= 0);
      for (; pid == 0; turns_->fetch_add(1)) {
        for (int turn = 0; turn < 1000; ++turn) benchmark::DoNotOptimize(turn);
      }
      pids_.push_back(pid);
    }
  }
  BusyProcesses(const BusyProcesses&) = delete;
  BusyProcesses& operator=(const BusyProcesses&) = delete;
  ~BusyProcesses() {
    for (const pid_t pid : pids_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    ::munmap(turns_, 4096);
  }
  uint64_t turns() const { return turns_->load(); }

 private:
  std::atomic<uint64_t>* turns_ = nullptr;
  std::vector<pid_t> pids_;
};

// Arguments: threads, busy processes beside, microseconds that the owner works alone between loops.
void empty_loop(benchmark::State& state) {
  const BusyProcesses busy(state.range(1));
  cpu::WorkerPool pool(static_cast<uint32_t>(state.range(0)));
  const Duration alone = std::chrono::microseconds(state.range(2));
  const uint64_t before = busy.turns();
  for ([[maybe_unused]] auto iteration : state) {
    pool.parallel_for(pool.thread_count(), [](uint32_t index, uint32_t) { benchmark::DoNotOptimize(index); });
    if (alone > Duration::zero()) work_for(alone);
  }
  state.counters["beside"] =
      benchmark::Counter(static_cast<double>(busy.turns() - before), benchmark::Counter::kIsRate);
}

BENCHMARK(empty_loop)
    ->ArgNames({"threads", "busy", "alone_us"})
    ->ArgsProduct({{1, 2, 4}, {0, 1, 2}, {0, 20, 200}})
    ->Unit(benchmark::kMicrosecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime();

}  // namespace
}  // namespace spillway

BENCHMARK_MAIN();
