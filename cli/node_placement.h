#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/options.h"
#include "common/cpu_list.h"
#include "common/numa_nodes.h"
#include "transfer/messages.h"

namespace spillway {

// Where one of serve's nodes computes.
struct NodePlace {
  CpuList cpus{};            // empty: wherever serve may
  bool given = false;        // by --prefill-cpus or --decode-cpus: its own, so its threads may be pinned
  uint32_t threads_max = 1;  // that its steps may use, unless --threads fixes them
};

// One of the processes that share a machine.
struct NodeDemand {
  Role role = Role::kPrefill;
  uint32_t threads = 0;  // fixed; 0: what there is
  uint64_t bytes = 0;    // that it will hold
};

// Each on one NUMA node, so that its threads are near its memory, which comes from where they run (first touch): the
// one with fewest nodes of its role, then with fewest at all, that has as many CPUs and as much memory left. One that
// fits on none, and all where there is one NUMA node, run anywhere. Nodes of one role share the CPUs of a place; the
// roles rarely peak together, so each may use all.
std::vector<NodePlace> place_on_numa(const std::vector<NumaNode>& machine, const std::vector<NodeDemand>& nodes);

// `parts` runs of neighbours, as even as can be, the longer ones first. REQUIRES 1 <= parts <= cpus.size().
std::vector<CpuList> split_cpus(const CpuList& cpus, uint32_t parts);

// Of serve's nodes, prefill nodes first: what --prefill-cpus and --decode-cpus say, shared out among the nodes of the
// role, else place_on_numa() with `node_bytes` of each. SetupError where a role has fewer CPUs than nodes, or CPUs that
// this process may not use.
std::vector<NodePlace> place_nodes(const Options& options, const std::vector<NumaNode>& machine, uint64_t node_bytes);
// On this machine, with the memory that the model needs. Throws as place_nodes() and where the model cannot be read.
std::vector<NodePlace> served_places(const Options& options);
// One line for people: "prefill 0 on CPU 0-3, decode 0 on CPU 4-7"; empty where none has a place.
std::string places_text(const Options& options, const std::vector<NodePlace>& places);

}  // namespace spillway
