#include "cli/run_directory.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "common/unique_fd.h"

namespace spillway {
namespace {

class RunDirectoryTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const char* const value = std::getenv("XDG_RUNTIME_DIR")) before_ = value;
  }
  void TearDown() override {
    if (before_) {
      ::setenv("XDG_RUNTIME_DIR", before_->c_str(), 1);
    } else {
      ::unsetenv("XDG_RUNTIME_DIR");
    }
  }
  static void expect_made_below(const std::string& parent) {
    std::string path;
    {
      const RunDirectory run;
      path = run.path();
      EXPECT_TRUE(path.starts_with(parent + "/spillway-")) << path;
      EXPECT_TRUE(std::filesystem::is_directory(path));
    }
    EXPECT_FALSE(std::filesystem::exists(path));
  }
  std::optional<std::string> before_;
};

TEST_F(RunDirectoryTest, IsInTheUsersRuntimeFolderWhereThatCanBeUsed) {
  std::string runtime = testing::TempDir() + "spillway-runtime-XXXXXX";
  ASSERT_NE(::mkdtemp(runtime.data()), nullptr);
  ::setenv("XDG_RUNTIME_DIR", runtime.c_str(), 1);
  expect_made_below(runtime);
  std::filesystem::remove(runtime);
}

TEST_F(RunDirectoryTest, IsInTmpWhereTheRuntimeFolderIsUnsetAbsentOrTooLongForASocket) {
  ::unsetenv("XDG_RUNTIME_DIR");
  expect_made_below("/tmp");
  ::setenv("XDG_RUNTIME_DIR", "/nowhere/at/all", 1);
  expect_made_below("/tmp");
  const std::string deep = testing::TempDir() + std::string(90, 'd');
  std::filesystem::create_directory(deep);
  ::setenv("XDG_RUNTIME_DIR", deep.c_str(), 1);
  expect_made_below("/tmp");
  std::filesystem::remove(deep);
}

TEST_F(RunDirectoryTest, TheNextRunRemovesWhatADeadOneLeftAndNothingElse) {
  std::string runtime = testing::TempDir() + "spillway-runtime-XXXXXX";
  ASSERT_NE(::mkdtemp(runtime.data()), nullptr);
  ::setenv("XDG_RUNTIME_DIR", runtime.c_str(), 1);
  const RunDirectory living;
  const auto make = [&](const std::string& name, bool locked_file) {
    const std::string folder = runtime + "/" + name;
    std::filesystem::create_directory(folder);
    if (locked_file) std::ofstream(folder + "/lock") << "";
    return folder;
  };
  const std::string dead = make("spillway-dead00", true);
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (dead + "/gateway.sock").copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  const std::string unlocked = make("spillway-nolock", false), full = make("spillway-full00", true);
  std::ofstream(full + "/precious") << "x";
  const std::string other_name = make("spillway-longer-name", true);
  const std::string target = make("target", true);
  std::filesystem::create_directory_symlink(target, runtime + "/spillway-linked");
  const std::string linked_lock = make("spillway-linkin", false);
  std::filesystem::create_symlink(target + "/lock", linked_lock + "/lock");

  const std::vector<std::string> found = orphaned_run_folders();
  EXPECT_NE(std::find(found.begin(), found.end(), dead), found.end());
  EXPECT_EQ(std::find(found.begin(), found.end(), living.path()), found.end());
  EXPECT_TRUE(std::filesystem::exists(dead)) << "a list removes nothing";
  { const RunDirectory next; }
  EXPECT_FALSE(std::filesystem::exists(dead));
  for (const std::string& kept : {living.path(), unlocked, full + "/precious", other_name, target + "/lock",
                                  runtime + "/spillway-linked", linked_lock})
    EXPECT_TRUE(std::filesystem::exists(kept)) << kept;
  std::filesystem::remove_all(runtime);
}

TEST(NodeArguments, DecodeNodesColocateWhereThereAreNoPrefillNodes) {
  const RunDirectory run;
  for (const uint32_t prefill : {0u, 1u}) {
    Options options;
    options.prefill = prefill;
    const auto colocates = [&](const char* role) {
      return std::ranges::count(node_arguments(options, role, 0, run), "--colocate") == 1;
    };
    EXPECT_EQ(colocates("decode"), prefill == 0);
    EXPECT_FALSE(colocates("prefill"));
  }
}

}  // namespace
}  // namespace spillway
