// Prompts whose tokens' log-probabilities are asked for.
#include <gtest/gtest.h>

#include "tests/prefill_node/prefill_script.h"

namespace spillway::script {
namespace {

constexpr uint32_t kPrompt = 300, kEntries = 3;

Work scored_work(uint64_t request, uint32_t prompt_tokens = kPrompt) {
  Work made = work(attempt(1), prompt_tokens);  // the same prompt for all
  made.attempt = attempt(request);
  made.logprob_count = kEntries;
  made.score_prompt = true;
  return made;
}

// Ends the step in flight; each token scored says where it stands.
void end_scored(PrefillScript& p, bool finite = true) {
  ASSERT_TRUE(p.step);
  StepDone done{.step = p.step->step, .sampled = {}, .elapsed = kMs};
  for (const StepShare& share : p.step->shares) {
    ScoredTokens scored{share.sequence, share.position_first + 1, share.logprob_count, finite};
    for (uint32_t row = 0; row < share.score_count; ++row)
      scored.logprobs.insert(scored.logprobs.end(), kEntries, {share.position_first + 1 + row, -1});
    if (share.score_count > 0) done.scored.push_back(scored);
    if (share.samples) done.sampled.push_back({share.sequence, 7, 11, true});
  }
  p.step.reset();
  p.on(done);
}

TEST(PrefillScores, AreOfAPromptComputedAnewAndLeaveInPiecesBeforeTokenZero) {
  PrefillScript p;
  p.connect();
  p.prefill(kPrompt);
  p.from(kDecodePeer, Grant{attempt(), 0});
  p.finish_steps();
  p.answer_sends();
  p.from(kDecodePeer, Committed{attempt()});
  ASSERT_TRUE(p.empty());
  p.forget_messages();

  p.from(kGateway, Prefill{scored_work(2), kDecodeBoot});
  ASSERT_TRUE(p.step);
  EXPECT_EQ(p.step->shares.at(0).position_first, 0u) << "nothing comes from the cache";
  EXPECT_EQ(p.step->shares[0].score_count, kChunkTokens);
  EXPECT_EQ(p.step->shares[0].after, scored_work(2).prompt[kChunkTokens]);
  end_scored(p);
  ASSERT_TRUE(p.step);
  EXPECT_EQ(p.step->shares.at(0).score_count, kPrompt - kChunkTokens - 1) << "nothing follows the last token";
  end_scored(p);

  uint32_t position = 1;
  for (const auto& [to, scores] : p.sent<PromptLogprobs>()) {
    EXPECT_EQ(to, kGateway);
    EXPECT_EQ(scores.attempt, attempt(2));
    EXPECT_EQ(scores.position_first, position);
    EXPECT_EQ(scores.logprob_count, kEntries);
    EXPECT_LE(scores.logprobs.size(), size_t{kScoredTokensMax} * kEntries);
    for (size_t entry = 0; entry < scores.logprobs.size(); ++entry)
      EXPECT_EQ(scores.logprobs[entry].token, position + entry / kEntries);
    position += static_cast<uint32_t>(scores.logprobs.size() / kEntries);
  }
  EXPECT_EQ(position, kPrompt);
  EXPECT_TRUE(std::holds_alternative<Token>(p.messages.back().message));
  EXPECT_EQ(p.sent<Token>().size(), 1u);
}

TEST(PrefillScores, OfOneTokenThereAreNone) {
  PrefillScript p;
  p.connect();
  p.from(kGateway, Prefill{scored_work(2, 1), kDecodeBoot});
  end_scored(p);
  EXPECT_TRUE(p.sent<PromptLogprobs>().empty());
  EXPECT_EQ(p.sent<Token>().size(), 1u);
}

TEST(PrefillScores, ThatAreNotFiniteFailTheRequestAlone) {
  PrefillScript p;
  p.connect();
  p.from(kGateway, Prefill{scored_work(2), kDecodeBoot});
  end_scored(p, false);
  EXPECT_TRUE(p.sent<PromptLogprobs>().empty());
  const auto failed = p.sent<Failed>();
  ASSERT_EQ(failed.size(), 2u);  // gateway and decode node
  EXPECT_EQ(failed[0].second.code, ErrorCode::kInternal);
  EXPECT_EQ(p.node.requests(), 0u);
}

}  // namespace
}  // namespace spillway::script
