// Where serve's nodes compute on machines with several NUMA nodes, and with lists of CPUs.
#include "cli/node_placement.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/check.h"

namespace spillway {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

std::vector<NumaNode> machine(const std::string& synthetic, const char* cpus) {
  return numa_nodes(parse_cpu_list(cpus).value(), synthetic);
}

Options pool(uint32_t prefill, uint32_t decode) {
  Options options;
  options.prefill = prefill;
  options.decode = decode;
  return options;
}

// "0-3 x4" is on CPU 0-3 with at most four threads; "any" has no place.
std::vector<std::string> places(const Options& options, const std::vector<NumaNode>& on, uint64_t node_bytes = kGiB) {
  std::vector<std::string> texts;
  for (const NodePlace& place : place_nodes(options, on, node_bytes))
    texts.push_back(place.cpus.empty() ? "any" : cpu_list_text(place.cpus) + " x" + std::to_string(place.threads_max));
  return texts;
}
using Places = std::vector<std::string>;

const std::string kTwoSockets = "numa:2(memory=64GB) core:4 pu:1";

TEST(NodePlacement, OnOneNumaNodeNothingChanges) {
  EXPECT_EQ(places(pool(2, 1), machine("core:8 pu:1", "0-7")), (Places{"any", "any", "any"}));
  EXPECT_EQ(places_text(pool(1, 1), place_nodes(pool(1, 1), machine("core:8 pu:1", "0-7"), 0)), "");
}

TEST(NodePlacement, RolesAndThenNodesOfARoleAreApart) {
  const std::vector<NumaNode> two = machine(kTwoSockets, "0-7");
  EXPECT_EQ(places(pool(1, 1), two), (Places{"0-3 x4", "4-7 x4"}));
  EXPECT_EQ(places(pool(2, 2), two), (Places{"0-3 x4", "4-7 x4", "0-3 x4", "4-7 x4"}));
  EXPECT_EQ(places(pool(1, 2), two), (Places{"0-3 x4", "4-7 x4", "0-3 x4"}));
  EXPECT_EQ(places(pool(3, 1), two), (Places{"0-3 x2", "4-7 x4", "0-3 x2", "4-7 x4"}));
  EXPECT_EQ(places(pool(1, 1), machine("numa:4(memory=64GB) core:2 pu:1", "0-7")), (Places{"0-1 x2", "2-3 x2"}));
  EXPECT_EQ(places(pool(1, 1), machine(kTwoSockets, "2-4")), (Places{"2-3 x2", "4 x1"}));
  EXPECT_EQ(places_text(pool(1, 1), place_nodes(pool(1, 1), two, kGiB)), "prefill 0 on CPU 0-3, decode 0 on CPU 4-7");
}

TEST(NodePlacement, WhatDoesNotFitOnOneRunsAnywhere) {
  Options options = pool(1, 1);
  options.prefill_threads = 6;
  EXPECT_EQ(places(options, machine(kTwoSockets, "0-7")), (Places{"any", "0-3 x4"}));
  options.prefill_threads = 3;
  EXPECT_EQ(places(options, machine(kTwoSockets, "0-7")), (Places{"0-3 x4", "4-7 x4"}));
  EXPECT_EQ(places(pool(1, 1), machine(kTwoSockets, "0-7"), 100 * kGiB), (Places{"any", "any"}));
  EXPECT_EQ(places(pool(2, 2), machine(kTwoSockets, "0-7"), 40 * kGiB), (Places{"0-3 x4", "4-7 x4", "any", "any"}));
  EXPECT_EQ(places(pool(1, 1), machine("package:2 [numa(memory=8GB)] core:4 pu:1", "0-7"), 7 * kGiB),
            (Places{"0-3 x4", "4-7 x4"}));
}

TEST(NodePlacement, AListIsSharedOutInOrder) {
  EXPECT_EQ(split_cpus({0, 1, 2, 3, 8}, 2), (std::vector<CpuList>{{0, 1, 2}, {3, 8}}));
  EXPECT_EQ(split_cpus({4, 5}, 2), (std::vector<CpuList>{{4}, {5}}));
  EXPECT_EQ(split_cpus({4, 5}, 1), (std::vector<CpuList>{{4, 5}}));
}

TEST(NodePlacement, GivenCpusWinAndAreTheirOwn) {
  const CpuList here = allowed_cpus();
  Options options = pool(1, 1);
  options.decode_cpus = cpu_list_text(here);
  const std::vector<NodePlace> found = place_nodes(options, machine(kTwoSockets, "0-7"), kGiB);
  EXPECT_EQ(cpu_list_text(found[0].cpus), "0-3");
  EXPECT_FALSE(found[0].given);
  EXPECT_EQ(found[1].cpus, here);
  EXPECT_TRUE(found[1].given);
  EXPECT_EQ(found[1].threads_max, here.size());
  options.threads_max = 1;
  EXPECT_EQ(place_nodes(options, machine(kTwoSockets, "0-7"), kGiB)[1].threads_max, 1u);
}

TEST(NodePlacement, CpusOfPrefillNodesThatAreNotThereGoToNobody) {
  Options options = pool(0, 2);
  options.prefill_cpus = std::to_string(allowed_cpus().front());
  EXPECT_EQ(places(options, machine(kTwoSockets, "0-7")), (Places{"0-3 x4", "4-7 x4"}));
}

std::string error_of(const Options& options) {
  try {
    place_nodes(options, machine("core:2 pu:1", "0-1"), 0);
  } catch (const SetupError& error) {
    return error.what();
  }
  return "";
}

TEST(NodePlacement, AListThatCannotBeIsNamed) {
  Options options = pool(1, 3);
  options.decode_cpus = std::to_string(allowed_cpus().front());
  EXPECT_NE(error_of(options).find("--decode-cpus " + options.decode_cpus + " is one CPU for 3 nodes"),
            std::string::npos)
      << error_of(options);
  options.decode_cpus = "64000-64002";
  EXPECT_NE(error_of(options).find("CPU 64000-64002 cannot be used"), std::string::npos) << error_of(options);
}

}  // namespace
}  // namespace spillway
