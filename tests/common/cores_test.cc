#include "common/cores.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <thread>

namespace spillway {
namespace {

class AvailableCores : public testing::Test {
 protected:
  void SetUp() override {
    std::string folder = testing::TempDir() + "/spillway-cores-XXXXXX";
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    root_ = folder;
    write("proc/self/cgroup", "0::/user/job\n");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  std::filesystem::path root_;
  const uint32_t machine_ = std::max(1u, std::thread::hardware_concurrency());
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

TEST_F(AvailableCores, AreTheSmallestQuotaOfTheGroupsRoundedUp) {
  write("sys/fs/cgroup/user/job/cpu.max", "50000 100000\n");
  EXPECT_EQ(available_cores(root_), 1u);
  write("sys/fs/cgroup/user/job/cpu.max", "max 100000\n");
  write("sys/fs/cgroup/user/cpu.max", "150000 100000\n");
  EXPECT_EQ(available_cores(root_), std::min(2u, machine_));
  write("sys/fs/cgroup/cpu.max", "100000 100000\n");
  EXPECT_EQ(available_cores(root_), 1u);
}

}  // namespace
}  // namespace spillway
