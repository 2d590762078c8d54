#include "kv/prefix_index.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace spillway {

PrefixIndex::PrefixIndex(uint32_t blocks_max) : blocks_max_(blocks_max) { nodes_.reserve(blocks_max); }

PrefixIndex::Node& PrefixIndex::node(const BlockKey& key) {
  const auto found = nodes_.find(key);
  CHECK(found != nodes_.end());
  return found->second;
}

const PrefixIndex::Node& PrefixIndex::node(const BlockKey& key) const {
  const auto found = nodes_.find(key);
  CHECK(found != nodes_.end());
  return found->second;
}

std::optional<SlotId> PrefixIndex::find(const BlockKey& key, const BlockKey& parent, std::span<const TokenId> tokens,
                                        const BlockEncoding& encoding) const {
  const auto found = nodes_.find(key);
  if (found == nodes_.end()) return std::nullopt;
  const Entry& entry = found->second.entry;
  if (entry.parent != parent || entry.encoding != encoding) return std::nullopt;
  if (!std::ranges::equal(entry.tokens, tokens)) return std::nullopt;
  return entry.slot;
}

void PrefixIndex::link(Node& child, Node& parent) {
  if (parent.first_child == nullptr) leaves_.erase(parent.used);
  child.parent = &parent;
  child.next = parent.first_child;
  if (child.next != nullptr) child.next->previous = &child;
  parent.first_child = &child;
}

void PrefixIndex::unlink(Node& child) {
  Node* const parent = child.parent;
  if (parent == nullptr) return;
  (child.previous != nullptr ? child.previous->next : parent->first_child) = child.next;
  if (child.next != nullptr) child.next->previous = child.previous;
  if (parent->first_child == nullptr) leaves_.emplace(parent->used, parent);
}

void PrefixIndex::insert(Entry entry) {
  CHECK(nodes_.size() < blocks_max_);
  Node* const parent = entry.parent == BlockKey{} ? nullptr : &node(entry.parent);
  const BlockKey key = entry.key;
  const auto [place, inserted] = nodes_.try_emplace(key);
  CHECK(inserted);
  Node& child = place->second;
  child.entry = std::move(entry);
  child.used = ++clock_;
  leaves_.emplace(child.used, &child);
  if (parent != nullptr) link(child, *parent);
}

void PrefixIndex::erase(const BlockKey& key) {
  Node& gone = node(key);
  CHECK(gone.first_child == nullptr);
  leaves_.erase(gone.used);
  unlink(gone);
  const BlockKey copy = key;  // `key` may live in the node
  nodes_.erase(copy);
}

std::vector<SlotId> PrefixIndex::erase_subtree(const BlockKey& key) {
  std::vector<SlotId> slots;
  const auto found = nodes_.find(key);
  if (found == nodes_.end()) return slots;
  Node* const root = &found->second;
  Node* at = root;
  while (true) {
    while (at->first_child != nullptr) at = at->first_child;
    Node* const above = at->parent;
    const bool done = at == root;
    slots.push_back(at->entry.slot);
    erase(at->entry.key);
    if (done) return slots;
    at = above;
  }
}

void PrefixIndex::touch(std::span<const BlockKey> chain) {
  for (size_t i = chain.size(); i > 0; --i) {
    Node& used = node(chain[i - 1]);
    const bool leaf = leaves_.erase(used.used) > 0;
    used.used = ++clock_;
    if (leaf) leaves_.emplace(used.used, &used);
  }
}

void PrefixIndex::check_conservation() const {
  CHECK(nodes_.size() <= blocks_max_);
  size_t leaves = 0, children = 0, with_parent = 0;
  for (const auto& [key, node] : nodes_) {
    CHECK(node.entry.key == key);
    CHECK((node.parent == nullptr) == (node.entry.parent == BlockKey{}));
    if (node.parent != nullptr) {
      ++with_parent;
      CHECK(node.parent->entry.key == node.entry.parent);
    }
    for (const Node* child = node.first_child; child != nullptr; child = child->next) {
      ++children;
      CHECK(child->parent == &node);
    }
    if (node.first_child != nullptr) continue;
    ++leaves;
    const auto leaf = leaves_.find(node.used);
    CHECK(leaf != leaves_.end() && leaf->second == &node);
  }
  CHECK(leaves == leaves_.size());
  CHECK(children == with_parent);
}

}  // namespace spillway
