#include "cli/secret_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "common/check.h"

namespace spillway {
namespace {

class SecretFile : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/spillway-secret-XXXXXX";
    ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  std::string folder_;
};

TEST_F(SecretFile, IsMadeOnceAndReadAgain) {
  const Secret first = read_or_make_secret(path("state/secret"));
  EXPECT_EQ(first, read_or_make_secret(path("state/secret")));
  EXPECT_NE(first, read_or_make_secret(path("other/secret")));
  EXPECT_NE(first, Secret{});
}

TEST_F(SecretFile, IsReadableByItsOwnerOnly) {
  static_cast<void>(read_or_make_secret(path("secret")));
  struct stat status {};
  ASSERT_EQ(::stat(path("secret").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

TEST_F(SecretFile, OneOpenToOthersIsRefused) {
  static_cast<void>(read_or_make_secret(path("secret")));
  ASSERT_EQ(::chmod(path("secret").c_str(), 0644), 0);
  EXPECT_THROW(static_cast<void>(read_or_make_secret(path("secret"))), SetupError);
}

TEST_F(SecretFile, ALinkIsRefused) {
  static_cast<void>(read_or_make_secret(path("elsewhere")));
  std::filesystem::create_symlink("elsewhere", path("secret"));
  EXPECT_THROW(static_cast<void>(read_or_make_secret(path("secret"))), SetupError);
}

TEST_F(SecretFile, OneOfAnotherSizeIsRefused) {
  std::ofstream(path("secret")) << "short";
  ASSERT_EQ(::chmod(path("secret").c_str(), 0600), 0);
  EXPECT_THROW(static_cast<void>(read_or_make_secret(path("secret"))), SetupError);
}

}  // namespace
}  // namespace spillway
