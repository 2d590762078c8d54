// Machines that we do not have, as hwloc describes them.
#include "common/numa_nodes.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace spillway {
namespace {

CpuList cpus(const char* text) { return parse_cpu_list(text).value(); }

std::vector<std::string> cpus_of(const std::vector<NumaNode>& nodes) {
  std::vector<std::string> lists;
  for (const NumaNode& node : nodes) lists.push_back(cpu_list_text(node.cpus));
  return lists;
}

TEST(NumaNodes, HaveTheirOwnCpusAndMemory) {
  const std::vector<NumaNode> nodes = numa_nodes(cpus("0-7"), "numa:2(memory=8GB) core:2 pu:2");
  EXPECT_EQ(cpus_of(nodes), (std::vector<std::string>{"0-3", "4-7"}));
  for (const NumaNode& node : nodes) EXPECT_NEAR(static_cast<double>(node.memory_bytes), 8e9, 1e9);
  EXPECT_EQ(cpus_of(numa_nodes(cpus("0-3"), "core:4 pu:1")), (std::vector<std::string>{"0-3"}));
}

TEST(NumaNodes, AreThoseOfTheCpusThatMayBeUsed) {
  const std::string machine = "numa:4 core:4 pu:1";
  EXPECT_EQ(cpus_of(numa_nodes(cpus("2-5,13"), machine)), (std::vector<std::string>{"2-3", "4-5", "13"}));
  EXPECT_EQ(cpus_of(numa_nodes(cpus("5"), machine)), (std::vector<std::string>{"5"}));
}

// Memory beside memory (HBM, CXL): the same CPUs are no second place to compute.
TEST(NumaNodes, CpusWithTwoKindsOfMemoryCountOnce) {
  EXPECT_EQ(cpus_of(numa_nodes(cpus("0-7"), "package:2 [numa(memory=8GB)] [numa(memory=2GB)] core:4 pu:1")),
            (std::vector<std::string>{"0-3", "4-7"}));
}

TEST(NumaNodes, WhatTheMachineDoesNotTellIsOneNode) {
  EXPECT_EQ(cpus_of(numa_nodes(cpus("0-3"), "no machine")), (std::vector<std::string>{"0-3"}));
  EXPECT_EQ(cpus_of(numa_nodes(cpus("0-3,9"), "numa:2 core:2 pu:1")), (std::vector<std::string>{"0-3,9"}));
  size_t here = 0;
  for (const NumaNode& node : numa_nodes(allowed_cpus())) here += node.cpus.size();
  EXPECT_EQ(here, allowed_cpus().size());
}

}  // namespace
}  // namespace spillway
