#include "text/special_token_matcher.h"

#include "common/check.h"

namespace spillway {
namespace {

uint64_t edge(uint32_t node, char byte) { return uint64_t{node} * 256 + static_cast<uint8_t>(byte); }

}  // namespace

void SpecialTokenMatcher::add(std::string_view text, TokenId token) {
  CHECK(!text.empty() && text.size() <= kTokenBytesMax);
  begins_token_[static_cast<uint8_t>(text[0])] = true;
  Node node = 0;
  for (const char byte : text) {
    const auto [child, is_new] = children_.emplace(edge(node, byte), node_count_);
    if (is_new) ++node_count_;
    node = child->second;
  }
  tokens_.emplace(node, token);
}

std::optional<SpecialTokenMatcher::Found> SpecialTokenMatcher::find(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!begins_token_[static_cast<uint8_t>(text[begin])]) continue;
    if (const std::optional<Found> found = longest_at(text, begin)) return found;
  }
  return std::nullopt;
}

std::optional<SpecialTokenMatcher::Found> SpecialTokenMatcher::longest_at(std::string_view text, size_t begin) const {
  std::optional<Found> longest;
  Node node = 0;
  for (size_t position = begin; position < text.size(); ++position) {
    const auto child = children_.find(edge(node, text[position]));
    if (child == children_.end()) break;
    node = child->second;
    if (const auto token = tokens_.find(node); token != tokens_.end())
      longest = Found{begin, position + 1 - begin, token->second};
  }
  return longest;
}

}  // namespace spillway
