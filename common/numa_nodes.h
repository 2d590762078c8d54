#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/cpu_list.h"

namespace spillway {

// A part of the machine whose CPUs and memory are near to each other.
struct NumaNode {
  CpuList cpus;
  uint64_t memory_bytes = 0;  // 0: not known
};

// The NUMA nodes that have CPUs among `allowed`, with those only, in the order of hwloc. One with all of `allowed`
// where the machine tells nothing (a container without /sys). CPUs with several kinds of memory count once, with the
// first. `synthetic` is a machine as hwloc describes one ("numa:2(memory=8GB) core:4 pu:1"), for tests; empty: this
// one.
std::vector<NumaNode> numa_nodes(const CpuList& allowed, const std::string& synthetic = "");

}  // namespace spillway
