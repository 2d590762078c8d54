#include "text/bpe_merger.h"

#include <algorithm>
#include <functional>

#include "common/check.h"

namespace spillway {
namespace {

uint64_t high_low(uint32_t high, uint32_t low) { return uint64_t{high} << 32 | low; }

}  // namespace

// Looks up the rule for the symbol at `index` and its next, and queues it.
void BpeMerger::offer(Workspace& workspace, uint32_t index) const {
  Workspace::Symbol& symbol = workspace.symbols[index];
  symbol.rank = Workspace::kNone;
  if (symbol.next == Workspace::kNone) return;
  const auto rule = rules_.find(high_low(symbol.token, workspace.symbols[symbol.next].token));
  if (rule == rules_.end()) return;
  symbol.rank = rule->second.rank;
  symbol.merged = rule->second.merged;
  workspace.candidates.push_back(high_low(symbol.rank, index));
  std::push_heap(workspace.candidates.begin(), workspace.candidates.end(), std::greater<>());
}

void BpeMerger::merge(const std::vector<TokenId>& symbols, Workspace& workspace, std::vector<TokenId>& tokens) const {
  constexpr uint32_t kNone = Workspace::kNone;
  CHECK(symbols.size() < kNone);
  workspace.symbols.clear();
  workspace.candidates.clear();
  const auto count = static_cast<uint32_t>(symbols.size());
  for (uint32_t index = 0; index < count; ++index)
    workspace.symbols.push_back(
        {symbols[index], index == 0 ? kNone : index - 1, index + 1 == count ? kNone : index + 1, kNone, 0});
  for (uint32_t index = 0; index < count; ++index) offer(workspace, index);

  std::vector<uint64_t>& candidates = workspace.candidates;
  while (!candidates.empty()) {
    std::pop_heap(candidates.begin(), candidates.end(), std::greater<>());
    const auto rank = static_cast<uint32_t>(candidates.back() >> 32);
    const auto left = static_cast<uint32_t>(candidates.back());
    candidates.pop_back();
    Workspace::Symbol& symbol = workspace.symbols[left];
    if (symbol.rank != rank) continue;  // outdated: since it was queued, this symbol or its next merged
    Workspace::Symbol& gone = workspace.symbols[symbol.next];
    symbol.token = symbol.merged;
    symbol.next = gone.next;
    gone.rank = kNone;
    if (symbol.next != kNone) workspace.symbols[symbol.next].previous = left;
    offer(workspace, left);
    if (symbol.previous != kNone) offer(workspace, symbol.previous);
  }
  for (uint32_t index = count == 0 ? kNone : 0; index != kNone; index = workspace.symbols[index].next)
    tokens.push_back(workspace.symbols[index].token);
}

}  // namespace spillway
