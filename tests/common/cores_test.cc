#include "common/cores.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <cstdlib>
#include <fstream>

namespace spillway {
namespace {

class AvailableCores : public testing::Test {
 protected:
  void SetUp() override {
    std::string folder = testing::TempDir() + "/spillway-cores-XXXXXX";
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    root_ = folder;
    cpu_set_t cores;
    ASSERT_EQ(::sched_getaffinity(0, sizeof cores, &cores), 0);
    machine_ = static_cast<uint32_t>(CPU_COUNT(&cores));
    write("proc/self/cgroup", "0::/user/job\n");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  std::filesystem::path root_;
  uint32_t machine_ = 0;
};

TEST_F(AvailableCores, AreTheMachinesWithoutAQuota) {
  EXPECT_EQ(available_cores(root_), machine_);
  write("sys/fs/cgroup/user/job/cpu.max", "max 100000\n");
  EXPECT_EQ(available_cores(root_), machine_);
  write("sys/fs/cgroup/user/job/cpu.max", "100000000000 100000\n");
  EXPECT_EQ(available_cores(root_), machine_);
  write("sys/fs/cgroup/user/job/cpu.max", "5 0\n");
  EXPECT_EQ(available_cores(root_), machine_);
}

TEST_F(AvailableCores, ThoseThatShareACoreComeAfterAllOthers) {
  EXPECT_EQ(cores_first({0, 1, 5}, 0, root_), (CpuList{0, 1, 5})) << "not told";
  EXPECT_EQ(cores_first({0, 1, 5}, 1, root_), (CpuList{1, 5, 0})) << "not told";
  const auto siblings = [&](uint32_t cpu, const char* list) {
    write("sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list", list);
  };
  for (uint32_t cpu = 0; cpu < 4; ++cpu) siblings(cpu, cpu < 2 ? "0-1\n" : "2-3\n");
  for (uint32_t cpu = 4; cpu < 8; ++cpu) siblings(cpu, cpu % 2 == 0 ? "4,6\n" : "5,7\n");
  EXPECT_EQ(cores_first({0, 1, 2, 3, 4, 5, 6, 7}, 0, root_), (CpuList{0, 2, 4, 5, 1, 3, 6, 7}));
  EXPECT_EQ(cores_first({0, 1, 2, 3, 4, 5, 6, 7}, 3, root_), (CpuList{3, 4, 5, 0, 6, 7, 1, 2}));
  EXPECT_EQ(cores_first({1, 3, 6}, 1, root_), (CpuList{1, 3, 6})) << "of the core's only those that may be used";
  EXPECT_EQ(cores_first({0, 1, 2, 4}, 1, root_), (CpuList{1, 2, 4, 0})) << "a core of which one may be used";
  EXPECT_EQ(cores_first({0, 2}, 1, root_), (CpuList{0, 2})) << "not one of them";
}

TEST_F(AvailableCores, AreThoseThatThisProcessMayRunOn) {
  cpu_set_t all, one;
  ASSERT_EQ(::sched_getaffinity(0, sizeof all, &all), 0);
  CPU_ZERO(&one);
  CPU_SET(::sched_getcpu(), &one);
  ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(available_cores(root_), 1u);
  ASSERT_EQ(::sched_setaffinity(0, sizeof all, &all), 0);
  EXPECT_EQ(available_cores(root_), machine_);
}

TEST_F(AvailableCores, AreTheSmallestQuotaOfTheGroupsRoundedUp) {
  write("sys/fs/cgroup/user/job/cpu.max", "50000 100000\n");
  EXPECT_EQ(available_cores(root_), 1u);
  write("sys/fs/cgroup/user/job/cpu.max", "max 100000\n");
  write("sys/fs/cgroup/user/cpu.max", "150000 100000\n");
  EXPECT_EQ(available_cores(root_), std::min(2u, machine_));
  write("sys/fs/cgroup/cpu.max", "100000 100000\n");
  EXPECT_EQ(available_cores(root_), 1u);
}

TEST_F(AvailableCores, AreThoseOfAnOlderGroupToo) {
  write("proc/self/cgroup", "7:cpuset:/else\n4:cpu,cpuacct:/user/job\n0::/\n");
  write("sys/fs/cgroup/cpu,cpuacct/user/job/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(available_cores(root_), machine_);  // and no quota
  write("sys/fs/cgroup/cpu,cpuacct/user/job/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(available_cores(root_), machine_);
  write("sys/fs/cgroup/cpu,cpuacct/user/job/cpu.cfs_quota_us", "150000\n");
  EXPECT_EQ(available_cores(root_), std::min(2u, machine_));
  write("sys/fs/cgroup/cpu,cpuacct/user/cpu.cfs_period_us", "200000\n");
  write("sys/fs/cgroup/cpu,cpuacct/user/cpu.cfs_quota_us", "200000\n");
  EXPECT_EQ(available_cores(root_), 1u);
}

// A container's own group is not among the folders it sees: the mount's root is that group.
TEST_F(AvailableCores, AreThoseOfAnOlderMountThatDoesNotShowTheGroup) {
  write("proc/self/cgroup", "4:cpu:/docker/0123\n");
  write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
  write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "0\n");
  EXPECT_EQ(available_cores(root_), machine_);
  write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(available_cores(root_), 1u);
}

}  // namespace
}  // namespace spillway
