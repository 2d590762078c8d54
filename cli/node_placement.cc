#include "cli/node_placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <span>
#include <tuple>

#include "cli/memory_plan.h"
#include "cli/serve_check.h"
#include "cli/value_or_throw.h"
#include "common/check.h"
#include "formats/gguf.h"
#include "kernels/make_backend.h"
#include "model/model_config.h"

namespace spillway {
namespace {

// What of one NUMA node is taken.
struct Taken {
  uint32_t prefill = 0, decode = 0;
  uint64_t bytes = 0;
  uint32_t& of(Role role) { return role == Role::kPrefill ? prefill : decode; }
  uint32_t all() const { return prefill + decode; }
};

std::optional<size_t> best_numa_node(const std::vector<NumaNode>& machine, std::vector<Taken>& taken,
                                     const NodeDemand& demand) {
  std::optional<size_t> best;
  for (size_t at = 0; at < machine.size(); ++at) {
    const uint64_t memory = machine[at].memory_bytes;
    const bool fits =
        demand.threads <= machine[at].cpus.size() && (memory == 0 || taken[at].bytes + demand.bytes <= memory);
    const auto load = [&](size_t one) { return std::tuple(taken[one].of(demand.role), taken[one].all()); };
    if (fits && (!best || load(at) < load(*best))) best = at;
  }
  return best;
}

void give_cpus(std::span<NodePlace> places, const std::string& list, const char* flag) {
  if (list.empty() || places.empty()) return;
  const CpuList cpus = value_or_throw(parse_cpu_list(list));
  check_allowed(cpus);
  if (cpus.size() < places.size())
    throw SetupError(fmt::format("{} {} is {} for {} nodes: each needs one of its own", flag, list,
                                 cpus.size() == 1 ? "one CPU" : fmt::format("{} CPUs", cpus.size()), places.size()));
  const std::vector<CpuList> parts = split_cpus(cpus, static_cast<uint32_t>(places.size()));
  for (size_t at = 0; at < places.size(); ++at)
    places[at] = {.cpus = parts[at], .given = true, .threads_max = static_cast<uint32_t>(parts[at].size())};
}

}  // namespace

std::vector<NodePlace> place_on_numa(const std::vector<NumaNode>& machine, const std::vector<NodeDemand>& nodes) {
  std::vector<NodePlace> places(nodes.size());
  if (machine.size() < 2) return places;
  std::vector<Taken> taken(machine.size());
  std::vector<std::optional<size_t>> chosen;
  for (const NodeDemand& node : nodes) {
    chosen.push_back(best_numa_node(machine, taken, node));
    if (!chosen.back()) continue;
    ++taken[*chosen.back()].of(node.role);
    taken[*chosen.back()].bytes += node.bytes;
  }
  for (size_t at = 0; at < nodes.size(); ++at) {
    if (!chosen[at]) continue;
    const CpuList& cpus = machine[*chosen[at]].cpus;
    const auto sharers = size_t{taken[*chosen[at]].of(nodes[at].role)};
    places[at] = {.cpus = cpus, .threads_max = static_cast<uint32_t>(std::max(size_t{1}, cpus.size() / sharers))};
  }
  return places;
}

std::vector<CpuList> split_cpus(const CpuList& cpus, uint32_t parts) {
  CHECK(parts >= 1 && parts <= cpus.size());
  std::vector<CpuList> lists;
  auto next = cpus.begin();
  for (uint32_t part = 0; part < parts; ++part) {
    const auto count = static_cast<ptrdiff_t>(cpus.size() / parts + (part < cpus.size() % parts ? 1 : 0));
    lists.emplace_back(next, next + count);
    next += count;
  }
  return lists;
}

std::vector<NodePlace> place_nodes(const Options& options, const std::vector<NumaNode>& machine, uint64_t node_bytes) {
  std::vector<NodeDemand> demands;
  for (uint32_t node = 0; node < options.prefill + options.decode; ++node) {
    const Role role = node < options.prefill ? Role::kPrefill : Role::kDecode;
    demands.push_back({.role = role, .threads = threads_fixed(options, role), .bytes = node_bytes});
  }
  std::vector<NodePlace> places = place_on_numa(machine, demands);
  for (size_t at = 0; at < places.size(); ++at)
    if (places[at].cpus.empty()) places[at].threads_max = threads_per_node(options, demands[at].role);
  give_cpus(std::span(places).first(options.prefill), options.prefill_cpus, "--prefill-cpus");
  give_cpus(std::span(places).subspan(options.prefill), options.decode_cpus, "--decode-cpus");
  for (NodePlace& place : places) place.threads_max = std::min(place.threads_max, kBackendThreadsMax);
  if (options.threads_max > 0)
    for (NodePlace& place : places) place.threads_max = std::min(place.threads_max, options.threads_max);
  return places;
}

std::vector<NodePlace> served_places(const Options& options) {
  const std::vector<NumaNode> machine = numa_nodes(allowed_cpus());
  uint64_t node_bytes = 0;
  if (machine.size() > 1 && !options.model.empty()) {
    const GgufFile file = value_or_throw(GgufFile::open(options.model));
    node_bytes = needed_bytes(options, planned_model(file, value_or_throw(read_model_config(file)))) /
                 (options.prefill + options.decode);
  }
  return place_nodes(options, machine, node_bytes);
}

std::string places_text(const Options& options, const std::vector<NodePlace>& places) {
  std::string text;
  for (size_t at = 0; at < places.size(); ++at) {
    if (places[at].cpus.empty()) continue;
    const bool prefill = at < options.prefill;
    text += fmt::format("{}{} {} on CPU {}", text.empty() ? "" : ", ", prefill ? "prefill" : "decode",
                        prefill ? at : at - options.prefill, cpu_list_text(places[at].cpus));
  }
  return text;
}

}  // namespace spillway
