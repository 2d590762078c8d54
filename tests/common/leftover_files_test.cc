#include "common/leftover_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "common/unique_fd.h"

namespace spillway {
namespace {

TEST(LeftoverFiles, OnlyWhatNobodyLocksAndLooksLikeOneIsRemoved) {
  std::string folder = testing::TempDir() + "spillway-leftovers-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/weights.bin";
  for (const char* const suffix :
       {"", ".backup", ".spillway-new.abcdef", ".spillway-new.ABCDEF", ".spillway-new.abcdefg", ".spillway-new.abc"})
    std::ofstream(path + suffix) << "x";
  std::ofstream(folder + "/other.abcdef") << "x";
  std::ofstream(folder + "/victim") << "x";
  ASSERT_EQ(::symlink((folder + "/victim").c_str(), (path + ".spillway-new.linked").c_str()), 0);
  ASSERT_EQ(::mkfifo((path + ".spillway-new.fifo00").c_str(), 0600), 0);
  std::filesystem::create_directory(path + ".spillway-new.folder");
  const UniqueFd writer(::open((path + ".spillway-new.ABCDEF").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::flock(writer.get(), LOCK_EX), 0);

  EXPECT_EQ(leftover_files(path), std::vector<std::string>{path + ".spillway-new.abcdef"});
  remove_leftover_files(path);
  EXPECT_FALSE(std::filesystem::exists(path + ".spillway-new.abcdef"));
  for (const char* const kept : {"weights.bin", "weights.bin.spillway-new.ABCDEF", "weights.bin.spillway-new.abcdefg",
                                 "weights.bin.spillway-new.abc", "weights.bin.backup", "other.abcdef", "victim",
                                 "weights.bin.spillway-new.linked", "weights.bin.spillway-new.fifo00"})
    EXPECT_TRUE(std::filesystem::exists(folder + "/" + kept)) << kept;
  std::filesystem::remove_all(folder);
}

TEST(LeftoverFiles, WhatThisProcessIsWritingIsRemovedWhateverItIsCalled) {
  std::string folder = testing::TempDir() + "spillway-leftovers-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  std::string mine = folder + "/weights.bin.spillway-new.XXXXXX";
  const UniqueFd writer(::mkostemp(mine.data(), O_CLOEXEC));
  ASSERT_TRUE(writer);
  const std::string others = folder + "/weights.bin.spillway-new.OTHERS", whole = folder + "/weights.bin";
  std::ofstream(others) << "x";
  const UniqueFd looks(::open(others.c_str(), O_RDONLY | O_CLOEXEC));
  const UniqueFd finished(::open(whole.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));

  remove_own_unfinished_files();
  EXPECT_FALSE(std::filesystem::exists(mine));
  EXPECT_TRUE(std::filesystem::exists(others));
  EXPECT_TRUE(std::filesystem::exists(whole));
  std::filesystem::remove_all(folder);
}

TEST(LeftoverFiles, NoFolderNoLeftovers) { EXPECT_TRUE(leftover_files("/nowhere/at/all/file").empty()); }

}  // namespace
}  // namespace spillway
