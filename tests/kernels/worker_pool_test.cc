#include "kernels/cpu/worker_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>
#include <thread>
#include <vector>

#include "common/check.h"

namespace spillway::cpu {
namespace {

TEST(WorkerPool, EveryIndexRunsOnceInEveryLoop) {
  for (const uint32_t threads : {1u, 2u, 3u, 8u}) {
    WorkerPool pool(threads);
    EXPECT_EQ(pool.thread_count(), threads);
    for (uint32_t loop = 0; loop < 300; ++loop) {
      const uint32_t count = loop % 7 * loop % 40;
      std::vector<uint32_t> runs(count);  // plain: a race here is a race of the pool
      pool.parallel_for(count, [&](uint32_t index, uint32_t thread) {
        ASSERT_LT(thread, threads);
        ++runs[index];
      });
      for (uint32_t index = 0; index < count; ++index) ASSERT_EQ(runs[index], 1u) << "loop " << loop;
    }
  }
}

TEST(WorkerPool, ALoopSeesWhatTheOneBeforeWrote) {
  WorkerPool pool(3);
  std::vector<uint64_t> values(64, 1);
  for (uint32_t loop = 0; loop < 200; ++loop) {
    std::vector<uint64_t> next(64);
    pool.parallel_for(64, [&](uint32_t index, uint32_t) { next[index] = values[63 - index] + 1; });
    values = next;
  }
  for (const uint64_t value : values) EXPECT_EQ(value, 201u);
}

TEST(WorkerPool, ThreadNumbersAreNeverSharedAtATime) {
  WorkerPool pool(4);
  std::array<std::atomic<int>, 4> inside{};
  std::atomic<bool> shared{false};
  for (uint32_t loop = 0; loop < 100; ++loop) {
    pool.parallel_for(16, [&](uint32_t, uint32_t thread) {
      if (inside[thread].fetch_add(1) != 0) shared = true;
      std::this_thread::yield();
      inside[thread].fetch_sub(1);
    });
  }
  EXPECT_FALSE(shared);
}

// Every index waits until all threads hold one, so the loop can only end if parked workers are woken.
TEST(WorkerPool, ParkedWorkersTakePartAgain) {
  constexpr uint32_t kThreads = 3;
  WorkerPool pool(kThreads);
  for (int loop = 0; loop < 5; ++loop) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // long past the spin: they are parked, or about to be
    std::atomic<uint32_t> arrived{0};
    pool.parallel_for(kThreads, [&](uint32_t, uint32_t) {
      arrived.fetch_add(1);
      while (arrived.load() < kThreads) std::this_thread::yield();
    });
    EXPECT_EQ(arrived.load(), kThreads);
  }
}

TEST(WorkerPool, WorkersFlushDenormalsAsTheOwnerDoes) {
  WorkerPool pool(2);
  std::atomic<uint32_t> arrived{0};
  std::array<float, 2> halves{1, 1};
  {
    const FlushDenormals flush;
    pool.parallel_for(2, [&](uint32_t index, uint32_t) {
      arrived.fetch_add(1);
      while (arrived.load() < 2) std::this_thread::yield();  // one index on each thread
      volatile float smallest = 0x1p-126f;
      halves[index] = smallest / 2;
    });
  }
  EXPECT_EQ(halves[0], 0.0f);  // outside the scope: within it a denormal would compare equal to zero
  EXPECT_EQ(halves[1], 0.0f);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they need address space of their own
// Leaves this process room for no further stack, then asks for more threads than glibc keeps old stacks for.
void ask_for_threads_without_memory() {
  std::ifstream sizes("/proc/self/statm");
  size_t pages = 0;
  sizes >> pages;
  rlimit limit{};
  ::getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur = pages * static_cast<size_t>(::sysconf(_SC_PAGESIZE)) + (size_t{1} << 20);
  ::setrlimit(RLIMIT_AS, &limit);
  try {
    const WorkerPool pool(WorkerPool::kThreadsMax);
  } catch (const SetupError& error) {
    std::fputs(error.what(), stderr);
    std::_Exit(1);
  }
  std::_Exit(0);
}

TEST(WorkerPoolDeathTest, AThreadThatCannotBeHadIsASetupErrorWithARemedy) {
  EXPECT_EXIT(ask_for_threads_without_memory(), testing::ExitedWithCode(1), "of 256: .*lower --threads");
}
#endif

}  // namespace
}  // namespace spillway::cpu
