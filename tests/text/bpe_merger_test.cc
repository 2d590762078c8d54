#include "text/bpe_merger.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace spillway {
namespace {

using Ids = std::vector<TokenId>;
using Rules = std::map<std::pair<TokenId, TokenId>, std::pair<size_t, TokenId>>;  // pair -> rank, merged

// The definition: again and again the leftmost pair of the lowest rank.
Ids merged_by_definition(Ids word, const Rules& rules) {
  for (;;) {
    size_t best = word.size(), best_rank = SIZE_MAX;
    for (size_t index = 0; index + 1 < word.size(); ++index) {
      const auto rule = rules.find({word[index], word[index + 1]});
      if (rule != rules.end() && rule->second.first < best_rank) best = index, best_rank = rule->second.first;
    }
    if (best == word.size()) return word;
    word[best] = rules.at({word[best], word[best + 1]}).second;
    word.erase(word.begin() + static_cast<long>(best) + 1);
  }
}

TEST(BpeMerger, MergesAsTheDefinitionDoesForRandomRulesAndWords) {
  std::mt19937 random(11);
  BpeMerger::Workspace workspace;  // reused: nothing of one word may leak into the next
  for (int vocabulary = 0; vocabulary < 200; ++vocabulary) {
    BpeMerger merger;
    Rules rules;
    TokenId token_count = 3;
    for (int count = 0; count < 12; ++count) {
      const TokenId left = random() % token_count, right = random() % token_count;
      const TokenId merged = random() % 4 == 0 ? random() % token_count : token_count++;  // also into an older token
      merger.add_rule(left, right, {static_cast<uint32_t>(count), merged});
      rules.emplace(std::pair(left, right), std::pair(rules.size(), merged));
    }
    for (int count = 0; count < 50; ++count) {
      Ids word(random() % 24);
      for (TokenId& token : word) token = random() % 3;
      Ids merged;
      merger.merge(word, workspace, merged);
      ASSERT_EQ(merged, merged_by_definition(word, rules));
    }
  }
}

}  // namespace
}  // namespace spillway
