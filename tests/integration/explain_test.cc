// `explain`: the three ways give the same bits, and what the operations counted is what the shapes say.
#include <gtest/gtest.h>

#include <string>

#include "cli/explain_command.h"
#include "kernels/make_backend.h"
#include "tests/support/tiny_model.h"

namespace spillway {
namespace {

class Explain : public testing::Test {
 protected:
  const TinyModelFile tiny_{{.seed = 31, .layers = 3, .head_dim = 32}};
};

LocalModel::Limits limits(const std::string& isa, uint32_t rows) {
  return {.isa = isa,
          .threads = 2,
          .rows_max = rows,
          .logit_rows_max = rows,
          .model_len = rows,
          .kv_bytes = uint64_t{1} << 24};
}

TEST_F(Explain, CountersAreTheClosedFormulaOnEveryIsaLevel) {
  const ModelFile file(tiny_.path());
  std::vector<TokenId> prompt;
  for (TokenId token = 10; token < 90; ++token) prompt.push_back(token);
  for (const std::string& isa : available_isa_levels()) {
    for (const KvDtype kv : {KvDtype::kBf16, KvDtype::kInt8}) {
      LocalModel::Limits given = limits(isa, 90);
      given.precision.kv = kv;
      LocalModel model(file, given);
      const Explanation explanation = explain(model, prompt, 5);
      for (const Explanation::Way& way : explanation.ways) {
        EXPECT_TRUE(way.bits_equal) << way_name(way.way);
        EXPECT_EQ(way.counter_mismatches, std::vector<std::string>{}) << way_name(way.way);
        EXPECT_EQ(way.run.steps.size(), 5u);
      }
      EXPECT_TRUE(explanation.holds());
    }
  }
}

TEST_F(Explain, HoldsOnTheRealModel) {
  const ModelFile file(SPILLWAY_MODEL);
  LocalModel model(file, limits("auto", 90));
  const std::vector<TokenId> prompt(80, TokenId{600});
  EXPECT_TRUE(explain(model, prompt, 2).holds());
}

// The formula itself, by hand: 3 layers, prompt of 10, heads 4 x 32, kv heads 2, hidden 64, ff 96, vocabulary 300.
TEST_F(Explain, TheFormulaIsRightForStepsCountedByHand) {
  const ModelFile file(tiny_.path());
  LocalModel model(file, limits("scalar", 16));
  const OpCounters all = expected_counters(model, DecodeWay::kNoCache, 0, 10);
  EXPECT_EQ(all.q_rows, 30u);
  EXPECT_EQ(all.mlp_rows, 30u);
  EXPECT_EQ(all.logit_rows, 10u);
  EXPECT_EQ(all.gemm_flops, 2u * 10 * (3 * (256 * 64 + 64 * 128 + 192 * 64 + 64 * 96) + 300 * 64));
  EXPECT_EQ(all.attention_flops, 4u * 32 * 4 * 3 * 55);
  const OpCounters pruned = expected_counters(model, DecodeWay::kPruned, 0, 10);
  EXPECT_EQ(pruned.kv_rows, 30u);
  EXPECT_EQ(pruned.mlp_rows, 21u);
  EXPECT_EQ(pruned.logit_rows, 1u);
  EXPECT_EQ(pruned.attention_flops, 4u * 32 * 4 * (2 * 55 + 10));
  const OpCounters cached = expected_counters(model, DecodeWay::kKvCache, 10, 1);
  EXPECT_EQ(cached.q_rows, 3u);
  EXPECT_EQ(cached.attention_flops, 4u * 32 * 4 * 3 * 11);
  EXPECT_EQ(cached.kv_bytes, 3u * 11 * 2 * 2 * 32 * 2);
}

TEST_F(Explain, ACounterThatDisagreesIsAFailure) {
  const ModelFile file(tiny_.path());
  LocalModel model(file, limits("auto", 16));
  Explanation explanation = explain(model, std::vector<TokenId>{5, 6, 7}, 2);
  ASSERT_TRUE(explanation.holds());
  explanation.ways[1].counter_mismatches.push_back("step 0: q_rows counted 1, the formula gives 2");
  EXPECT_FALSE(explanation.holds());
  const std::string text = format_explanation(explanation, model.config(), 3);
  EXPECT_NE(text.find("COUNTER WRONG: step 0: q_rows"), std::string::npos) << text;
}

TEST_F(Explain, TheCommandExitsWithZero) {
  Options options;
  options.model = tiny_.path();
  options.prompt = "K and V are kept, Q is not.";
  options.max_tokens = 10;
  EXPECT_EQ(explain_command(options), 0);
}

}  // namespace
}  // namespace spillway
