#include "cli/run_directory.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <optional>

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

}  // namespace
}  // namespace spillway
