// Engine, Executor and Decoder together in one process: what a caller of LocalEngine may rely on.
#include "cli/local_engine.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "tests/support/tiny_model.h"

namespace spillway {
namespace {

class LocalEngineTest : public testing::Test {
 protected:
  LocalEngine& start(const TinyModelOptions& options, uint32_t slots = 64) {
    file_ = std::make_unique<ModelFile>(TinyModelFile(options).path());
    model_ = std::make_unique<LocalModel>(
        *file_, LocalModel::Limits{.threads = 1,
                                   .rows_max = 40,
                                   .logit_rows_max = 8,
                                   .model_len = 256,
                                   .kv_bytes = slots * file_->config().kv_layout().block_bytes()});
    engine_ = std::make_unique<LocalEngine>(*model_, 32, 8);
    return *engine_;
  }
  static LocalEngine::Request request(std::vector<TokenId> prompt, uint32_t tokens_max) {
    return {.prompt = std::move(prompt),
            .tokens_max = tokens_max,
            .stop_tokens = {},
            .sampling = {},
            .digest_logits = true};
  }
  Result<std::vector<LocalEngine::Answer>> generate(const LocalEngine::Request& one) {
    return engine_->generate({&one, 1}, {});
  }
  std::unique_ptr<ModelFile> file_;
  std::unique_ptr<LocalModel> model_;
  std::unique_ptr<LocalEngine> engine_;
};

TEST_F(LocalEngineTest, TokensAreHandedOutInOrderAsTheyComeAndAgreeWithTheAnswer) {
  LocalEngine& engine = start({.seed = 41});
  const LocalEngine::Request one = request({5, 6, 7}, 9);
  std::vector<TokenId> seen;
  const auto answers = engine.generate({&one, 1}, [&](size_t index, const EngineToken& token) {
    EXPECT_EQ(index, 0u);
    EXPECT_EQ(token.index, seen.size());
    seen.push_back(token.token);
  });
  ASSERT_TRUE(answers) << answers.error().detail;
  EXPECT_EQ(answers->front().tokens, seen);
  EXPECT_EQ(seen.size(), 9u);
  EXPECT_EQ(answers->front().logits_digests.size(), 9u);
  EXPECT_LE(answers->front().started, answers->front().first_token);
  EXPECT_LE(answers->front().first_token, answers->front().last_token);
}

TEST_F(LocalEngineTest, TheStopTokenEndsTheAnswerAndIsPartOfIt) {
  start({.seed = 41});
  const auto free_running = generate(request({5, 6, 7}, 9));
  ASSERT_TRUE(free_running);
  LocalEngine::Request stopping = request({5, 6, 7}, 9);
  stopping.stop_tokens = {free_running->front().tokens[0]};
  const auto stopped = generate(stopping);
  ASSERT_TRUE(stopped);
  EXPECT_EQ(stopped->front().tokens, stopping.stop_tokens);
}

TEST_F(LocalEngineTest, TheSameSeedDrawsTheSameTokensAndAnotherSeedOthers) {
  start({.seed = 42});
  const auto draw = [&](uint64_t seed) {
    LocalEngine::Request sampled = request({9, 8, 7}, 12);
    sampled.sampling = {.temperature = 1.0f, .seed = seed};
    return generate(sampled)->front().tokens;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
}

TEST_F(LocalEngineTest, PromptsThatCannotBeServedAreErrorsAndLeaveTheEngineUsable) {
  LocalEngine& engine = start({.seed = 43}, 4);
  EXPECT_EQ(generate(request({}, 1)).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(generate(request({TinyModel::kTinyVocab}, 1)).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(generate(request(std::vector<TokenId>(257, 1), 1)).error().code, ErrorCode::kTooLong);
  EXPECT_EQ(generate(request(std::vector<TokenId>(200, 1), 58)).error().code, ErrorCode::kTooLong);
  const std::vector<LocalEngine::Request> too_many(2, request(std::vector<TokenId>(190, 1), 1));  // 3 blocks of 4 each
  EXPECT_EQ(engine.generate(too_many, {}).error().code, ErrorCode::kNoSpace);
  engine.engine().check_conservation();
  EXPECT_EQ(engine.engine().open_sequences(), 0u);
  const auto answer = generate(request(std::vector<TokenId>(250, 1), 6));
  ASSERT_TRUE(answer) << answer.error().detail;
  EXPECT_EQ(answer->front().tokens.size(), 6u);
}

TEST_F(LocalEngineTest, LogitsThatAreNotFiniteEndInAnErrorNotInATokenStream) {
  LocalEngine& engine = start({.seed = 44, .poisoned = true});
  const auto answer = generate(request({1, 2, 3}, 4));
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kInternal);
  engine.engine().check_conservation();
  EXPECT_EQ(engine.engine().open_sequences(), 0u);
}

TEST_F(LocalEngineTest, ASecondTurnFindsTheFirstOnesBlocks) {
  start({.seed = 45});
  std::vector<TokenId> turn(100, 3);
  const auto first = generate(request(turn, 40));
  ASSERT_TRUE(first);
  EXPECT_EQ(first->front().cached_tokens, 0u);
  turn.insert(turn.end(), first->front().tokens.begin(), first->front().tokens.end());
  turn.push_back(17);
  const auto second = generate(request(turn, 3));
  ASSERT_TRUE(second);
  EXPECT_EQ(second->front().cached_tokens, 128u);  // two full blocks of prompt and answer
}

}  // namespace
}  // namespace spillway
