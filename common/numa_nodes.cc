#include "common/numa_nodes.h"

#include <hwloc.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <type_traits>
#include <utility>

namespace spillway {
namespace {

struct DestroyTopology {
  void operator()(hwloc_topology_t topology) const { ::hwloc_topology_destroy(topology); }
};
using Topology = std::unique_ptr<std::remove_pointer_t<hwloc_topology_t>, DestroyTopology>;

// Null where hwloc cannot tell.
Topology load_topology(const std::string& synthetic) {
  hwloc_topology_t made = nullptr;
  if (::hwloc_topology_init(&made) != 0) return nullptr;
  Topology topology(made);
  if (!synthetic.empty() && ::hwloc_topology_set_synthetic(made, synthetic.c_str()) != 0) return nullptr;
  ::hwloc_topology_set_all_types_filter(made, HWLOC_TYPE_FILTER_KEEP_STRUCTURE);  // no devices: they take time to find
  return ::hwloc_topology_load(made) == 0 ? std::move(topology) : nullptr;
}

CpuList cpus_of(const hwloc_obj& node, const CpuList& allowed) {
  CpuList cpus;
  std::ranges::copy_if(allowed, std::back_inserter(cpus),
                       [&](uint32_t cpu) { return ::hwloc_bitmap_isset(node.cpuset, cpu) != 0; });
  return cpus;
}

}  // namespace

std::vector<NumaNode> numa_nodes(const CpuList& allowed, const std::string& synthetic) {
  std::vector<NumaNode> nodes;
  CpuList left = allowed;
  if (const Topology topology = load_topology(synthetic)) {
    for (hwloc_obj_t at = nullptr;
         (at = ::hwloc_get_next_obj_by_type(topology.get(), HWLOC_OBJ_NUMANODE, at)) != nullptr;) {
      NumaNode node{.cpus = cpus_of(*at, left), .memory_bytes = at->attr->numanode.local_memory};
      std::erase_if(left, [&](uint32_t cpu) { return std::ranges::binary_search(node.cpus, cpu); });
      if (!node.cpus.empty()) nodes.push_back(std::move(node));
    }
  }
  if (nodes.empty() || !left.empty())
    return {{.cpus = allowed, .memory_bytes = 0}};  // what hwloc leaves out is ours too
  return nodes;
}

}  // namespace spillway
