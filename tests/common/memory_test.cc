#include "common/memory.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <limits>

namespace spillway {
namespace {

// A machine whose /proc and /sys hold what the test wrote.
class AvailableMemory : public testing::Test {
 protected:
  void SetUp() override {
    std::string folder = testing::TempDir() + "/spillway-memory-XXXXXX";
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    root_ = folder;
    write("proc/meminfo", "MemTotal:  9000 kB\nMemFree:  100 kB\nMemAvailable:  1000 kB\n");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  std::filesystem::path root_;
};

TEST_F(AvailableMemory, IsTheMachinesWithoutGroups) {
  EXPECT_EQ(available_memory_bytes(root_), 1000u * 1024);
  EXPECT_EQ(available_memory_bytes(root_ / "nothing"), std::numeric_limits<uint64_t>::max());
}

TEST_F(AvailableMemory, IsWhatAV2GroupHasLeft) {
  write("proc/self/cgroup", "0::/user/job\n");
  write("sys/fs/cgroup/user/job/memory.max", "500000\n");
  write("sys/fs/cgroup/user/job/memory.current", "300000\n");
  EXPECT_EQ(available_memory_bytes(root_), 200000u);
  write("sys/fs/cgroup/user/job/memory.stat", "anon 5\ninactive_file 50000\nactive_file 7000\n");
  EXPECT_EQ(available_memory_bytes(root_), 257000u);
  write("sys/fs/cgroup/user/job/memory.max", "max\n");
  EXPECT_EQ(available_memory_bytes(root_), 1000u * 1024);
}

TEST_F(AvailableMemory, AGroupAboveLimitsToo) {
  write("proc/self/cgroup", "0::/user/job\n");
  write("sys/fs/cgroup/user/job/memory.max", "500000\n");
  write("sys/fs/cgroup/user/job/memory.current", "100000\n");
  write("sys/fs/cgroup/user/memory.max", "400000\n");
  write("sys/fs/cgroup/user/memory.current", "390000\n");
  EXPECT_EQ(available_memory_bytes(root_), 10000u);
  write("sys/fs/cgroup/user/memory.current", "410000\n");
  EXPECT_EQ(available_memory_bytes(root_), 0u);
}

TEST_F(AvailableMemory, IsWhatAV1GroupHasLeft) {
  write("proc/self/cgroup", "5:cpu,cpuacct:/elsewhere\n4:memory:/job\n0::/\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", "7000000\n");
  EXPECT_EQ(available_memory_bytes(root_), 1000u * 1024);
  write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "600000\n");
  write("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "200000\n");
  write("sys/fs/cgroup/memory/job/memory.stat", "inactive_file 1\ntotal_inactive_file 1000\ntotal_active_file 500\n");
  EXPECT_EQ(available_memory_bytes(root_), 401500u);
}

TEST_F(AvailableMemory, AGroupThatAContainerDoesNotSeeIsItsMount) {
  write("proc/self/cgroup", "4:memory:/docker/0123\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "600000\n");
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", "200000\n");
  EXPECT_EQ(available_memory_bytes(root_), 400000u);
}

}  // namespace
}  // namespace spillway
