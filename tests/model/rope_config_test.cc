#include "model/rope_config.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "model/model_config.h"
#include "tests/support/tiny_model.h"

namespace spillway {
namespace {

Result<ModelConfig> read(const TinyModelOptions& options) {
  const GgufFile file = make_tiny_model(options).open();
  return read_model_config(file);
}

void expect_refused(const TinyModelOptions& options, const std::vector<std::string>& words) {
  const Result<ModelConfig> config = read(options);
  ASSERT_FALSE(config) << words.front();
  EXPECT_EQ(config.error().code, ErrorCode::kUnsupported);
  for (const std::string& word : words)
    EXPECT_NE(config.error().detail.find(word), std::string::npos) << config.error().detail;
}

TEST(RopeConfig, IsPlainWithoutAWordOfScaling) {
  for (const char* const type : {"none", static_cast<const char*>(nullptr)}) {
    const Result<ModelConfig> config = read({.rope_type = type});
    ASSERT_TRUE(config) << config.error().detail;
    EXPECT_EQ(config->rope.theta_base, 10000.0);
    EXPECT_EQ(config->rope.position_scale, 1.0);
    EXPECT_EQ(config->rope.magnitude, 1.0);
    EXPECT_TRUE(config->rope.divisors.empty());
  }
}

TEST(RopeConfig, ALinearFactorDividesPositionsWithOrWithoutItsType) {
  for (const char* const type : {"linear", static_cast<const char*>(nullptr)}) {
    for (const char* const key : {"rope.scaling.factor", "rope.scale_linear"}) {
      const Result<ModelConfig> config = read({.rope_type = type, .rope_factor = 4, .rope_factor_key = key});
      ASSERT_TRUE(config) << config.error().detail;
      EXPECT_EQ(config->rope.position_scale, 0.25);
    }
  }
  EXPECT_EQ(read({.rope_type = "none", .rope_factor = 4})->rope.position_scale, 1.0);  // "none" makes it void
  EXPECT_EQ(read({.rope_type = "linear"})->rope.position_scale, 1.0);
}

TEST(RopeConfig, AnAttentionFactorIsTheMagnitude) {
  const Result<ModelConfig> config = read({.rope_factor = 1.25f, .rope_factor_key = "rope.scaling.attn_factor"});
  ASSERT_TRUE(config) << config.error().detail;
  EXPECT_EQ(config->rope.magnitude, 1.25);
}

TEST(RopeConfig, OtherScalingIsRefusedByItsName) {
  for (const char* const type : {"yarn", "longrope", "dynamic"})
    expect_refused({.architecture = "qwen2", .rope_type = type}, {"qwen2.rope.scaling.type", type, "linear"});
}

TEST(RopeConfig, ImpossibleFactorsAreRefusedWithTheirKey) {
  for (const float factor : {-1.0f, 1e-30f, 1e9f, std::numeric_limits<float>::quiet_NaN()}) {
    expect_refused({.rope_type = "linear", .rope_factor = factor}, {"llama.rope.scaling.factor"});
    expect_refused({.rope_factor = factor, .rope_factor_key = "rope.scaling.attn_factor"},
                   {"llama.rope.scaling.attn_factor"});
    expect_refused({.rope_divisors = {1, 1, 1, 1, 1, 1, 1, factor}}, {kRopeFactorsTensor});
  }
}

TEST(RopeConfig, FactorsAreReadFromTheirTensorAndMustBeOneAPair) {
  const std::vector<float> divisors{1, 1, 2, 3.5f, 8, 8, 8, 8};
  const Result<ModelConfig> config = read({.rope_divisors = divisors});
  ASSERT_TRUE(config) << config.error().detail;
  EXPECT_EQ(config->rope.divisors, divisors);
  expect_refused({.head_dim = 32, .rope_divisors = divisors}, {kRopeFactorsTensor, "16 pairs"});
}

TEST(RopeConfig, TheModelIdCoversEveryScaling) {
  const GgufFile file = make_tiny_model({}).open();
  const ModelConfig config = *read_model_config(file);
  std::vector<ModelId> ids{compute_model_id(digest_of(file), config, 64)};
  const auto differs = [&](const auto& change) {
    ModelConfig other = config;
    change(other);
    const ModelId id = compute_model_id(digest_of(file), other, 64);
    for (const ModelId& before : ids) EXPECT_NE(id, before);
    ids.push_back(id);
  };
  differs([](ModelConfig& c) { c.rope.theta_base = 10001.0; });
  differs([](ModelConfig& c) { c.rope.position_scale = 0.25; });
  differs([](ModelConfig& c) { c.rope.magnitude = 1.25; });
  differs([](ModelConfig& c) { c.rope.divisors = std::vector<float>(8, 1.0f); });
  differs([](ModelConfig& c) { c.rope.divisors = std::vector<float>(8, 2.0f); });
  differs([](ModelConfig& c) { c.architecture.name = "qwen2"; });
  differs([](ModelConfig& c) { c.architecture.qkv_bias = true; });
  differs([](ModelConfig& c) { c.architecture.qk_norm = true; });
  differs([](ModelConfig& c) { c.architecture.rope_order = RopeOrder::kHalves; });
  differs([](ModelConfig& c) { c.sliding_window = 1024; });
}

}  // namespace
}  // namespace spillway
