#include "cli/api_key_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "common/check.h"

namespace spillway {
namespace {

class ApiKeyFile : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/spillway-keys-XXXXXX";
    ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string write(const std::string& text, mode_t mode = 0600) const {
    const std::string path = folder_ + "/keys";
    std::ofstream(path) << text;
    EXPECT_EQ(::chmod(path.c_str(), mode), 0);
    return path;
  }
  static std::string why_refused(const std::string& path) {
    try {
      static_cast<void>(read_api_keys(path));
    } catch (const SetupError& error) {
      return error.what();
    }
    return "";
  }
  std::string folder_;
};

TEST_F(ApiKeyFile, KeysAreLinesThatAreNoComments) {
  EXPECT_EQ(read_api_keys(write("# ours\n\nsk-key-one \r\nsk-two#2\n#sk-old\nlast-key")),
            (std::vector<std::string>{"sk-key-one", "sk-two#2", "last-key"}));
}

TEST_F(ApiKeyFile, OneOpenToOthersIsRefused) {
  for (const mode_t mode : {0644u, 0640u, 0602u})
    EXPECT_NE(why_refused(write("sk-one", mode)).find("chmod 600"), std::string::npos) << mode;
}

TEST_F(ApiKeyFile, ALinkIsFollowedAndWhatItLeadsToMustBePrivate) {
  const std::string link = folder_ + "/link", second = folder_ + "/second";
  std::filesystem::create_symlink("keys", link);  // as secret mounts and certificate tools have them
  std::filesystem::create_symlink("link", second);
  write("sk-key-one\n");
  EXPECT_EQ(read_api_keys(second), std::vector<std::string>{"sk-key-one"});
  write("sk-key-one\n", 0644);
  EXPECT_NE(why_refused(second).find("chmod 600"), std::string::npos);
}

TEST_F(ApiKeyFile, WhatIsNoPlainFileIsRefusedAndNotWaitedFor) {
  const std::string fifo = folder_ + "/fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_NE(why_refused(fifo).find("not a plain file"), std::string::npos);
  EXPECT_NE(why_refused(folder_).find("not a plain file"), std::string::npos);
}

TEST_F(ApiKeyFile, NoneAndTooManyKeysAreRefused) {
  std::string keys;
  for (int key = 0; key < 64; ++key) keys += "the-key-" + std::to_string(key) + "\n";
  EXPECT_EQ(read_api_keys(write(keys)).size(), 64u);
  EXPECT_NE(why_refused(write(keys + "one-more-key")).find("65 keys"), std::string::npos);
  EXPECT_NE(why_refused(write("# nothing yet\n")).find("0 keys"), std::string::npos);
  EXPECT_NE(why_refused(folder_ + "/absent").find("there is no"), std::string::npos);
  EXPECT_NE(why_refused(write(std::string(70000, '#'))).find("larger than"), std::string::npos);
}

TEST_F(ApiKeyFile, ABadLineIsNamedAndNotShown) {
  for (const std::string& line :
       {std::string("my secret"), std::string(257, 's'), std::string("sec\x01ret-word"), std::string("7secret")}) {
    const std::string why = why_refused(write("good-key\n" + line + "\n"));
    EXPECT_NE(why.find("line 2"), std::string::npos);
    EXPECT_EQ(why.find(line), std::string::npos);
  }
}

}  // namespace
}  // namespace spillway
