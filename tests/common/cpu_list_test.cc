#include "common/cpu_list.h"

#include <gtest/gtest.h>

#include <thread>

#include "common/check.h"

namespace spillway {
namespace {

TEST(CpuList, IsReadAsTheKernelWritesIt) {
  const auto read = [](const char* text) { return parse_cpu_list(text).value(); };
  EXPECT_EQ(read("0"), (CpuList{0}));
  EXPECT_EQ(read("0-3,8"), (CpuList{0, 1, 2, 3, 8}));
  EXPECT_EQ(read("8,0-3,2-4,8"), (CpuList{0, 1, 2, 3, 4, 8}));
  EXPECT_EQ(read("5-5"), (CpuList{5}));
  EXPECT_EQ(read("65535"), (CpuList{kCpuMax}));
  EXPECT_EQ(read("0-65535,0-65535,0-65535").size(), 65536u);
}

TEST(CpuList, WhatIsNoneIsQuoted) {
  for (const char* text :
       {"",    ",",   "0,", ",0",    "0,,1", "-",  "1-",    "-1",      "3-1",        "a",
        "0-a", "0 1", " 0", "0-1-2", "0x1",  "+1", "65536", "0-65536", "4294967296", "99999999999999999999",
        "1;2"}) {
    const Result<CpuList> list = parse_cpu_list(text);
    ASSERT_FALSE(list) << text;
    EXPECT_EQ(list.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(list.error().detail.find(text), std::string::npos) << list.error().detail;
  }
}

TEST(CpuList, IsWrittenAsItIsRead) {
  for (const char* text : {"0", "0-1", "0-3,8", "1,3,5", "0,2-4,7-9,65535"})
    EXPECT_EQ(cpu_list_text(parse_cpu_list(text).value()), text);
  EXPECT_EQ(cpu_list_text({}), "");
}

TEST(CpuList, AThreadRunsWhereItIsTold) {
  const CpuList all = allowed_cpus();
  ASSERT_FALSE(all.empty());
  std::thread([&] {
    {
      const RunsOn last({all.back()});
      EXPECT_EQ(allowed_cpus(), CpuList{all.back()});
      std::thread([&] { EXPECT_EQ(allowed_cpus(), CpuList{all.back()}); }).join();
    }
    EXPECT_EQ(allowed_cpus(), all);
    const RunsOn anywhere({});
    EXPECT_EQ(allowed_cpus(), all);
    run_on({all.front()});
    EXPECT_EQ(allowed_cpus(), CpuList{all.front()});
  }).join();
  EXPECT_EQ(allowed_cpus(), all);
}

TEST(CpuList, CpusThatCannotBeUsedAreNamedBesideThoseThatCan) {
  const CpuList all = allowed_cpus();
  CpuList more = all;
  more.push_back(40000);
  more.push_back(40001);
  try {
    run_on(more);
    FAIL() << "ran on them";
  } catch (const SetupError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("CPU 40000-40001 cannot be used"), std::string::npos) << text;
    EXPECT_NE(text.find("may run on " + cpu_list_text(all)), std::string::npos) << text;
  }
  EXPECT_EQ(allowed_cpus(), all);
}

}  // namespace
}  // namespace spillway
