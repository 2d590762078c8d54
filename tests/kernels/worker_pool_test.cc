#include "kernels/cpu/worker_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "common/check.h"
#include "common/cpu_list.h"
#include "kernels/cpu/processor.h"

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

bool all_workers_sleep() {
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name, line;
    std::getline(std::ifstream(task.path() / "comm"), name);
    std::getline(std::ifstream(task.path() / "stat"), line);
    if (name.starts_with("worker") && line.substr(line.rfind(')')).substr(2, 1) != "S") return false;
  }
  return true;
}

bool all_workers_fall_asleep() {
  for (int i = 0; i < 10'000 && !all_workers_sleep(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return all_workers_sleep();
}

// Every index waits until all threads hold one, so the loop can only end if parked workers are woken.
TEST(WorkerPool, ParkedWorkersTakePartAgain) {
  constexpr uint32_t kThreads = 3;
  WorkerPool pool(kThreads);
  for (int loop = 0; loop < 5; ++loop) {
    ASSERT_TRUE(all_workers_fall_asleep());
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

// Ends only if `threads` threads take part; gives the highest of their numbers.
uint32_t highest_thread(WorkerPool& pool, uint32_t threads) {
  std::atomic<uint32_t> arrived{0}, highest{0};
  pool.parallel_for(threads, [&](uint32_t, uint32_t thread) {
    for (uint32_t seen = highest; seen < thread && !highest.compare_exchange_weak(seen, thread);) {
    }
    arrived.fetch_add(1);
    while (arrived.load() < threads) std::this_thread::yield();
  });
  return highest;
}

TEST(WorkerPool, AsManyThreadsTakePartAsItIsToldAndNoOthers) {
  WorkerPool pool(4);
  for (const uint32_t used : {4u, 2u, 1u, 3u, 4u, 1u, 2u}) {
    pool.use_threads(used);
    EXPECT_EQ(highest_thread(pool, used), used - 1);
  }
  for (uint32_t loop = 0; loop < 1000; ++loop) {  // those left out of one were in the one just before
    const uint32_t used = loop % 2 == 0 ? 4 : 2;
    pool.use_threads(used);
    std::vector<uint32_t> runs(40), highest(40);
    pool.parallel_for(40, [&](uint32_t index, uint32_t thread) {
      ++runs[index];
      highest[index] = thread;
      if (index % 8 == 0) std::this_thread::yield();
    });
    ASSERT_EQ(std::vector<uint32_t>(40, 1), runs) << "loop " << loop << " of " << used;
    ASSERT_LT(*std::ranges::max_element(highest), used) << "loop " << loop;
  }
}

// In a thread of its own: what it may run on ends with it.
template <class Body>
void on_cpus(const CpuList& cpus, const Body& body) {
  std::thread([&] {
    run_on(cpus);
    body();
  }).join();
}

TEST(WorkerPool, ManyThreadsOnOneCoreGetAllDone) {
  on_cpus({allowed_cpus().front()}, [] {
    WorkerPool pool(8);
    for (uint32_t loop = 0; loop < 300; ++loop) {
      std::vector<uint32_t> runs(20);
      pool.parallel_for(20, [&](uint32_t index, uint32_t) { ++runs[index]; });
      ASSERT_EQ(std::vector<uint32_t>(20, 1), runs) << "loop " << loop;
    }
    for (int loop = 0; loop < 20; ++loop) EXPECT_EQ(highest_thread(pool, 8), 7u);
  });
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

// Of the workers of this process: there is one pool at a time.
TEST(WorkerPool, WithoutLoopsItsWorkersSleepSoon) {
  WorkerPool pool(2);  // on two cores its worker looks for more, for a while
  const double before = cpu_seconds();
  pool.parallel_for(2, [](uint32_t, uint32_t) {});
  EXPECT_TRUE(all_workers_fall_asleep());
  EXPECT_LT(cpu_seconds() - before, 0.03);  // this loop's own included
}

// What each thread of the pool may run on: all take part.
std::vector<CpuList> cpus_of_threads(WorkerPool& pool) {
  const uint32_t threads = pool.thread_count();
  std::vector<CpuList> found(threads);
  std::atomic<uint32_t> arrived{0};
  pool.parallel_for(threads, [&](uint32_t, uint32_t thread) {
    found[thread] = allowed_cpus();
    arrived.fetch_add(1);
    while (arrived.load() < threads) std::this_thread::yield();
  });
  return found;
}

TEST(WorkerPool, AsManyCpusAsThreadsAreOneForEach) {
  const CpuList allowed = allowed_cpus();
  if (allowed.size() < 2) GTEST_SKIP() << "one CPU";
  on_cpus(allowed, [&] {
    const CpuList cpus{allowed[0], allowed[1]};
    WorkerPool pool(2, cpus);
    pool.pin_owner();
    for (int loop = 0; loop < 20; ++loop) {
      EXPECT_EQ(cpus_of_threads(pool), (std::vector<CpuList>{{cpus[0]}, {cpus[1]}}));
    }
  });
}

TEST(WorkerPool, HeldApartEachThreadKeepsToACpuUntilLetGo) {
  const CpuList allowed = allowed_cpus();
  on_cpus(allowed, [&] {
    WorkerPool pool(3);
    for (int turn = 0; turn < 3; ++turn) {
      pool.hold_apart(true);
      pool.hold_apart(true);  // as it is
      const std::vector<CpuList> held = cpus_of_threads(pool);
      for (uint32_t thread = 0; thread < 3; ++thread) EXPECT_EQ(held[thread].size(), 1u);
      EXPECT_EQ(held[0] == held[1], allowed.size() == 1);
      pool.hold_apart(false);
      pool.hold_apart(false);
      for (const CpuList& cpus : cpus_of_threads(pool)) EXPECT_EQ(cpus, allowed);
    }
  });
}

TEST(WorkerPool, OfAPinnedPoolTheOwnerIsHeld) {
  const CpuList allowed = allowed_cpus();
  if (allowed.size() < 2) GTEST_SKIP() << "one CPU";
  on_cpus(allowed, [&] {
    WorkerPool pool(2, {allowed[0], allowed[1]});
    pool.hold_apart(true);
    EXPECT_EQ(allowed_cpus(), CpuList{allowed[0]});
    pool.hold_apart(false);
    EXPECT_EQ(allowed_cpus(), allowed);
    EXPECT_EQ(cpus_of_threads(pool), (std::vector<CpuList>{allowed, {allowed[1]}})) << "its worker is as before";
  });
}

TEST(WorkerPool, MoreCpusThanThreadsPinNobody) {
  const CpuList allowed = allowed_cpus();
  on_cpus(allowed, [&] {
    WorkerPool pool(2, {allowed.front()});
    pool.pin_owner();
    pool.parallel_for(2, [&](uint32_t, uint32_t) { EXPECT_EQ(allowed_cpus(), allowed); });
  });
}

TEST(WorkerPool, ACpuThatIsNotOursIsNamed) {
  try {
    const WorkerPool pool(2, {allowed_cpus().front(), kCpuMax});
    FAIL() << "took it";
  } catch (const SetupError& error) {
    EXPECT_NE(std::string(error.what()).find("CPU 65535 cannot be used"), std::string::npos) << error.what();
  }
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
