#include "transfer/prompt_scores.h"

#include <gtest/gtest.h>

#include "transfer/message_codec.h"

namespace spillway {
namespace {

TEST(PromptScores, LeaveInFullMessagesAndARest) {
  constexpr uint32_t kEntries = 3, kTokens = 2 * kScoredTokensMax + 5;
  PromptLogprobs scores{{{BootId{1}, 2}, {BootId{1}, 3}, Epoch{4}}, 100, kEntries, {}};
  for (uint32_t token = 0; token < kTokens; ++token)
    scores.logprobs.insert(scores.logprobs.end(), kEntries, {100 + token, -1});
  const std::vector<PromptLogprobs> pieces = in_messages(scores);
  ASSERT_EQ(pieces.size(), 3u);
  uint32_t position = 100;
  for (const PromptLogprobs& piece : pieces) {
    EXPECT_EQ(piece.attempt, scores.attempt);
    EXPECT_EQ(piece.position_first, position);
    for (size_t entry = 0; entry < piece.logprobs.size(); ++entry)
      EXPECT_EQ(piece.logprobs[entry].token, position + entry / kEntries);
    position += static_cast<uint32_t>(piece.logprobs.size() / kEntries);
    EXPECT_TRUE(decode_message(encode_message(BootId{1}, piece)));
  }
  EXPECT_EQ(position, 100 + kTokens);
  scores.logprobs.resize(size_t{kScoredTokensMax} * kEntries);
  EXPECT_EQ(in_messages(scores).size(), 1u);
  scores.logprobs.clear();
  EXPECT_TRUE(in_messages(scores).empty());
}

}  // namespace
}  // namespace spillway
