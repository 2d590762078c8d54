#include "gateway/node_table.h"

#include <fmt/format.h>

#include <algorithm>

namespace spillway {

namespace {

void add_difference(NodeTotals& sum, const NodeTotals& now, const NodeTotals& before) {
  for (uint64_t NodeTotals::*const one :
       {&NodeTotals::steps, &NodeTotals::step_tokens, &NodeTotals::step_sequences, &NodeTotals::transfers,
        &NodeTotals::transfer_failures, &NodeTotals::transfer_bytes})
    sum.*one += now.*one - std::min(now.*one, before.*one);  // a counter never falls, whatever a node says
}

}  // namespace

NodeTable::NodeTable(uint32_t nodes_max, uint32_t prefill_steps_ahead)
    : nodes_max_(nodes_max), prefill_steps_ahead_(prefill_steps_ahead) {
  CHECK(nodes_max > 0 && prefill_steps_ahead > 0);
}

Result<void> NodeTable::add(PeerId node, const Hello& hello) {
  if (hello.role == Role::kGateway) return fail(ErrorCode::kUnsupported, "this is a gateway too: nodes join it");
  if (hello.block_tokens == 0 || hello.blocks_total == 0 || hello.sequences_max == 0 || hello.max_model_len == 0 ||
      hello.step_tokens == 0)
    return fail(ErrorCode::kUnsupported, fmt::format("\"{}\" announces a size of 0", hello.name));
  for (const auto& [peer, other] : nodes_) {
    if (other.hello.encoding.dtype != hello.encoding.dtype)
      return fail(ErrorCode::kUnsupported,
                  fmt::format("\"{}\" stores KV as {}, \"{}\" as {}: give both the same --kv-dtype", hello.name,
                              kv_dtype_name(hello.encoding.dtype), other.hello.name,
                              kv_dtype_name(other.hello.encoding.dtype)));
    if (other.hello.encoding.numerics == hello.encoding.numerics && other.hello.canary != hello.canary)
      return fail(
          ErrorCode::kUnsupported,
          fmt::format("\"{}\" computes other bits than \"{}\" in numerics class {}, canary {:016x} and {:016x}: "
                      "run the same release with the same libm on both",
                      hello.name, other.hello.name, static_cast<unsigned>(hello.encoding.numerics), hello.canary,
                      other.hello.canary));
  }
  if (nodes_.size() >= nodes_max_) return fail(ErrorCode::kNoSpace, fmt::format("{} nodes have joined", nodes_max_));
  Node entry;
  entry.hello = hello;
  entry.load.blocks_free = hello.blocks_total;  // until its first Load; no share of them
  CHECK(nodes_.try_emplace(node, std::move(entry)).second);
  return {};
}

bool NodeTable::remove(PeerId node) { return nodes_.erase(node) == 1; }

const Hello* NodeTable::hello(PeerId node) const {
  const auto entry = nodes_.find(node);
  return entry == nodes_.end() ? nullptr : &entry->second.hello;
}

std::string NodeTable::name(PeerId node, Role role) const {
  const Hello* const known = hello(node);
  return known == nullptr ? fmt::format("a {} node", role_name(role)) : process_name(*known);
}

std::string NodeTable::warning_about(PeerId node) const {
  const Hello* const joined = hello(node);
  if (joined == nullptr) return {};
  const auto other = std::ranges::find_if(
      nodes_, [&](const auto& entry) { return entry.second.hello.encoding.numerics != joined->encoding.numerics; });
  if (other == nodes_.end()) return {};
  const Hello& before = other->second.hello;
  return fmt::format(
      "\"{}\" computes in numerics class {}, \"{}\" in {}: tokens may differ by which node computes; give both the "
      "same --activations and --isa",
      process_name(*joined), static_cast<unsigned>(joined->encoding.numerics), process_name(before),
      static_cast<unsigned>(before.encoding.numerics));
}

std::vector<PeerId> NodeTable::with_role(Role role) const {
  std::vector<PeerId> found;
  for (const auto& [peer, node] : nodes_) {
    if (node.hello.role == role) found.push_back(peer);
  }
  return found;
}

NodeTable::Moved NodeTable::on(PeerId node, const Load& load) {
  const auto entry = nodes_.find(node);
  if (entry == nodes_.end()) return {};
  const Load before = entry->second.load;
  const bool has_more_room = load.blocks_share > before.blocks_share || load.sequences_share > before.sequences_share ||
                             load.preempted_sequences < before.preempted_sequences;
  if (has_more_room) entry->second.refused_until = TimePoint{};
  if (entry->second.announced)
    add_difference(entry->second.hello.role == Role::kPrefill ? prefill_totals_ : decode_totals_, load.totals,
                   before.totals);
  if (entry->second.announced) {
    counts_.preemptions += load.preemptions - std::min(before.preemptions, load.preemptions);
    counts_.recomputed_tokens += load.recomputed_tokens - std::min(before.recomputed_tokens, load.recomputed_tokens);
  }
  entry->second.announced = true;
  entry->second.load = load;
  const auto grew = [&](uint64_t NodeTotals::*const one) {
    return load.totals.*one - std::min(load.totals.*one, before.totals.*one);
  };
  const bool fewer_wait =
      load.queued_prompt_tokens < before.queued_prompt_tokens && load.running_sequences >= before.running_sequences;
  // Where one node does both, another request's end may come in the same Load.
  return {.prompts = fewer_wait || grew(&NodeTotals::step_tokens) > grew(&NodeTotals::step_sequences),
          .anything = load.totals.steps > before.totals.steps};
}

void NodeTable::place(PeerId node, RequestId request, const NodeShare& share) {
  CHECK(nodes_.at(node).shares.try_emplace(request, share).second);
}

void NodeTable::release(PeerId node, RequestId request) {
  const auto entry = nodes_.find(node);
  if (entry != nodes_.end()) entry->second.shares.erase(request);
}

void NodeTable::prefilled(PeerId node, RequestId request) {
  const auto entry = nodes_.find(node);
  if (entry == nodes_.end()) return;
  const auto share = entry->second.shares.find(request);
  if (share != entry->second.shares.end()) share->second.prompt_tokens = 0;
}

void NodeTable::refused(PeerId node, TimePoint until) {
  const auto entry = nodes_.find(node);
  if (entry != nodes_.end()) entry->second.refused_until = until;
}

void NodeTable::end_refusals(TimePoint now) {
  for (auto& [peer, node] : nodes_) {
    if (node.refused_until <= now) node.refused_until = TimePoint{};
  }
}

std::vector<PeerId> NodeTable::leaving() const {
  std::vector<PeerId> found;
  for (const auto& [peer, node] : nodes_) {
    if (node.load.draining && !node.let_go) found.push_back(peer);
  }
  return found;
}

void NodeTable::let_go(PeerId node) { nodes_.at(node).let_go = true; }

bool NodeTable::drains(PeerId node) const {
  const auto entry = nodes_.find(node);
  return entry != nodes_.end() && entry->second.load.draining;
}

NodeTable::Capacity NodeTable::capacity(Role role) const {
  Capacity capacity;
  for (const auto& [peer, node] : nodes_) {
    if (!does(node, role)) continue;
    const std::string name = node.hello.name.empty() ? fmt::format("a {} node", role_name(role)) : node.hello.name;
    if (node.load.stalled_ms > 0) {
      capacity.troubles.push_back(fmt::format("{} has made no step for {} s while {} sequences are there", name,
                                              node.load.stalled_ms / 1000, node.load.running_sequences));
    } else if (node.load.transfer_stalled_ms > 0) {
      capacity.troubles.push_back(fmt::format("{} has moved no KV blocks for {} s: its transfer thread does not answer",
                                              name, node.load.transfer_stalled_ms / 1000));
    } else if (node.load.draining) {
      capacity.troubles.push_back(fmt::format("{} is draining", name));
    } else {
      ++capacity.working;
    }
  }
  return capacity;
}

NodeView NodeTable::view(PeerId peer, const Node& node, TimePoint now) const {
  NodeView view;
  view.node = peer;
  view.takes_prefill = does(node, Role::kPrefill);
  view.takes_decode = does(node, Role::kDecode);
  const Load& load = node.load;
  view.queued_prompt_tokens = load.queued_prompt_tokens;
  view.sequences_max = node.hello.sequences_max;
  const uint32_t sequences_share = std::min(load.sequences_share, view.sequences_max);
  view.running_sequences = view.sequences_max - sequences_share;
  view.sequences_of_others = view.running_sequences - std::min(load.running_sequences, view.running_sequences);
  view.blocks_total = node.hello.blocks_total;
  view.blocks_free = std::min(load.blocks_share, view.blocks_total);
  view.blocks_of_others = std::min(load.blocks_free, view.blocks_total) - view.blocks_free;
  view.block_tokens = node.hello.block_tokens;
  view.growth_margin = node.hello.growth_margin;
  uint64_t own_tokens = 0;
  for (const auto& [request, share] : node.shares) {
    own_tokens += share.prompt_tokens;
    if (share.transfer <= load.newest_transfer) continue;
    ++view.running_sequences;
    view.queued_prompt_tokens += share.prompt_tokens;
    view.blocks_promised += share.blocks;
  }
  // Another gateway's prompts do not lock ours out: what waits there waits in order of arrival.
  own_tokens = std::min<uint64_t>(own_tokens, view.queued_prompt_tokens);
  view.has_enough = view.takes_prefill && own_tokens >= uint64_t{prefill_steps_ahead_} * node.hello.step_tokens;
  if (load.preempted_sequences > 0 || node.refused_until > now)
    view.running_sequences = std::max(view.running_sequences, view.sequences_max);
  return view;
}

NodeTable::Fit NodeTable::fit(Role role, uint32_t prompt_tokens, uint32_t output_tokens_max, bool working) const {
  const uint64_t tokens = uint64_t{prompt_tokens} + output_tokens_max;
  Fit fit;
  for (const auto& [peer, node] : nodes_) {
    const Hello& hello = node.hello;
    if (!does(node, role) || (working && !works(node))) continue;
    fit.any = true;
    const uint64_t held = hello.role == Role::kPrefill ? prompt_tokens : tokens;
    const uint64_t capacity = uint64_t{hello.blocks_total} * hello.block_tokens;
    fit.fits |= tokens <= hello.max_model_len && held <= capacity;
    fit.model_len = std::max<uint64_t>(fit.model_len, hello.max_model_len);
    fit.pool = std::max(fit.pool, capacity);
  }
  return fit;
}

Result<void> NodeTable::could_fit(uint32_t prompt_tokens, uint32_t output_tokens_max) const {
  for (const Role role : {Role::kPrefill, Role::kDecode}) {
    const Fit best = fit(role, prompt_tokens, output_tokens_max, false);
    if (best.fits || !best.any) continue;
    return fail(ErrorCode::kTooLong,
                fmt::format("{} prompt + {} output tokens fit no {} node: context of {} tokens, memory for {}; shorten "
                            "either",
                            prompt_tokens, output_tokens_max, role_name(role), best.model_len, best.pool));
  }
  return {};
}

Result<void> NodeTable::could_fit_working(uint32_t prompt_tokens, uint32_t output_tokens_max) const {
  for (const Role role : {Role::kPrefill, Role::kDecode}) {
    const Fit best = fit(role, prompt_tokens, output_tokens_max, true);
    if (best.fits || !best.any) continue;
    return fail(
        ErrorCode::kUnavailable,
        fmt::format("{} prompt + {} output tokens fit no {} node that works now ({}): try again later, or "
                    "shorten either",
                    prompt_tokens, output_tokens_max, role_name(role), fmt::join(capacity(role).troubles, "; ")));
  }
  return {};
}

std::vector<NodeView> NodeTable::views(uint64_t tokens, TimePoint now) const {
  std::vector<NodeView> views;
  for (const auto& [peer, node] : nodes_) {
    if (node.announced && works(node) && tokens <= node.hello.max_model_len) views.push_back(view(peer, node, now));
  }
  return views;
}

TimePoint NodeTable::next_deadline() const {
  TimePoint earliest = kNever;
  for (const auto& [peer, node] : nodes_) {
    if (node.refused_until != TimePoint{}) earliest = std::min(earliest, node.refused_until);
  }
  return earliest;
}

uint32_t NodeTable::count(Role role) const {
  return static_cast<uint32_t>(std::ranges::count_if(
      nodes_, [&](const auto& entry) { return entry.second.announced && entry.second.hello.role == role; }));
}

bool NodeTable::any_for(Role part) const {
  return std::ranges::any_of(nodes_,
                             [&](const auto& entry) { return entry.second.announced && does(entry.second, part); });
}

uint32_t NodeTable::max_model_len() const {
  uint32_t smallest = 0;
  for (const auto& [peer, node] : nodes_) {
    smallest = smallest == 0 ? node.hello.max_model_len : std::min(smallest, node.hello.max_model_len);
  }
  return smallest;
}

uint32_t NodeTable::blocks_total() const {
  uint32_t blocks = 0;
  for (const auto& [peer, node] : nodes_) blocks += node.hello.blocks_total;
  return blocks;
}

RoleCounts NodeTable::counts(Role role) const {
  RoleCounts counts;
  counts.totals = role == Role::kPrefill ? prefill_totals_ : decode_totals_;
  for (const auto& [peer, node] : nodes_) {
    if (node.hello.role != role) continue;
    const uint32_t takeable = std::min(node.load.blocks_free, node.hello.blocks_total);
    const uint32_t cached = std::min(node.load.blocks_cached, takeable);
    counts.blocks_free += takeable - cached;
    counts.blocks_cached += cached;
    counts.blocks_used += node.hello.blocks_total - takeable;
  }
  return counts;
}

bool NodeTable::preempts(PeerId node) const {
  const auto entry = nodes_.find(node);
  return entry != nodes_.end() && entry->second.load.preempted_sequences > 0;
}

uint32_t NodeTable::blocks_free() const {
  uint32_t blocks = 0;
  for (const auto& [peer, node] : nodes_) blocks += std::min(node.load.blocks_free, node.hello.blocks_total);
  return blocks;
}

}  // namespace spillway
