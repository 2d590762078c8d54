#include "model/model_config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/make_backend.h"
#include "model/weights.h"
#include "tests/support/tiny_model.h"

namespace spillway {
namespace {

using Bytes = std::vector<std::byte>;

size_t find(const Bytes& bytes, std::string_view text) {
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  const auto at = std::search(bytes.begin(), bytes.end(), begin, begin + text.size());
  EXPECT_NE(at, bytes.end()) << text;
  return static_cast<size_t>(at - bytes.begin());
}

// The value of a 4-byte metadata entry: key, type (4 bytes), value.
Bytes with_value(Bytes bytes, std::string_view key, uint32_t value) {
  std::memcpy(bytes.data() + find(bytes, key) + key.size() + 4, &value, sizeof value);
  return bytes;
}
Bytes with_text(Bytes bytes, std::string_view from, std::string_view to) {  // the first occurrence; equal lengths
  EXPECT_EQ(from.size(), to.size());
  std::memcpy(bytes.data() + find(bytes, from), to.data(), to.size());
  return bytes;
}

Result<ModelConfig> read(Bytes bytes) {
  const Result<GgufFile> file = GgufFile::from_bytes(std::move(bytes));
  if (!file) return tl::unexpected<Error>(file.error());
  return read_model_config(*file);
}

Result<Weights> load(Bytes bytes) {
  const Result<GgufFile> file = GgufFile::from_bytes(std::move(bytes));
  if (!file) return tl::unexpected<Error>(file.error());
  const Result<ModelConfig> config = read_model_config(*file);
  if (!config) return tl::unexpected<Error>(config.error());
  const auto backend = make_backend({.isa = "scalar", .threads = 1});
  return load_weights(*file, *config, *backend);
}

TEST(ModelConfig, IsWhatTheMetadataSays) {
  const TinyModel model = make_tiny_model({.layers = 3, .head_dim = 32, .context = 777});
  const Result<ModelConfig> config = read(model.gguf);
  ASSERT_TRUE(config) << config.error().detail;
  EXPECT_EQ(config->layer_count, 3);
  EXPECT_EQ(config->heads, 4);
  EXPECT_EQ(config->kv_heads, 2);
  EXPECT_EQ(config->head_dim, 32);
  EXPECT_EQ(config->hidden, 64u);
  EXPECT_EQ(config->feed_forward, 96u);
  EXPECT_EQ(config->vocab, TinyModel::kTinyVocab);
  EXPECT_EQ(config->context_max, 777u);
  EXPECT_FLOAT_EQ(config->rms_epsilon, 1e-5f);
  EXPECT_EQ(config->rope_theta, 10000.0);
  EXPECT_EQ(config->kv_layout().k_bytes(), size_t{2} * 64 * 32 * 2);
}

TEST(ModelConfig, ImpossibleNumbersAreErrorsThatNameTheKey) {
  const Bytes good = make_tiny_model({}).gguf;
  struct Case {
    std::string key;
    uint32_t value;
  };
  const Case cases[] = {{"llama.block_count", 0},
                        {"llama.block_count", 100000},
                        {"llama.embedding_length", 0},
                        {"llama.embedding_length", 0xffffffff},
                        {"llama.feed_forward_length", 0},
                        {"llama.context_length", 0},
                        {"llama.context_length", 0x7fffffff},
                        {"llama.attention.head_count", 130},  // 65 query heads per KV head
                        {"llama.attention.head_count_kv", 0},
                        {"llama.attention.head_count_kv", 3},
                        {"llama.attention.key_length", 0},
                        {"llama.attention.key_length", 1000},
                        {"llama.attention.value_length", 48},
                        {"llama.rope.dimension_count", 8},
                        {"llama.attention.layer_norm_rms_epsilon", std::bit_cast<uint32_t>(-1.0f)},
                        {"llama.attention.layer_norm_rms_epsilon", 0x7fc00000},
                        {"llama.rope.freq_base", std::bit_cast<uint32_t>(0.0f)},
                        {"llama.vocab_size", 299}};
  for (const auto& [key, value] : cases) {
    const Result<ModelConfig> config = read(with_value(good, key, value));
    ASSERT_FALSE(config) << key << " = " << value;
    const std::string& detail = config.error().detail;
    const bool named = detail.find(key.substr(6)) != std::string::npos ||
                       detail.find(key.substr(key.rfind('.') + 1)) != std::string::npos ||
                       (key == "llama.attention.key_length" && detail.find("head dimension") != std::string::npos);
    EXPECT_TRUE(named) << key << " = " << value << ": " << detail;
  }
}

TEST(ModelConfig, AnotherArchitectureIsRefusedByName) {
  const Result<ModelConfig> config = read(with_text(make_tiny_model({}).gguf, "llama", "gemma"));
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(config.error().detail.find("gemma"), std::string::npos) << config.error().detail;
}

TEST(ModelConfig, ScaledRopeIsRefused) {
  const Bytes good = make_tiny_model({}).gguf;  // says "none"
  const Result<ModelConfig> config = read(with_text(good, "none", "yarn"));
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(config.error().detail.find("yarn"), std::string::npos) << config.error().detail;
}

TEST(ModelConfig, AScalingFactorCountsWithoutAType) {
  EXPECT_TRUE(read(make_tiny_model({.rope_factor = 1}).gguf));
  for (const char* const key :
       {"llama.rope.scaling.factor", "llama.rope.scale_linear", "llama.rope.scaling.attn_factor"}) {
    const Result<ModelConfig> config = read(make_tiny_model({.rope_factor = 4, .rope_factor_key = key}).gguf);
    ASSERT_FALSE(config) << key;
    EXPECT_EQ(config.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(config.error().detail.find(std::string(key) + " is 4"), std::string::npos) << config.error().detail;
  }
}

TEST(ModelConfig, AMissingKeyIsAnErrorThatNamesIt) {
  const Result<ModelConfig> config =
      read(with_text(make_tiny_model({}).gguf, "llama.block_count", "llama.block_cound"));
  ASSERT_FALSE(config);
  EXPECT_NE(config.error().detail.find("llama.block_count"), std::string::npos) << config.error().detail;
}

TEST(Weights, AMissingTensorIsAnErrorThatNamesIt) {
  const Result<Weights> weights =
      load(with_text(make_tiny_model({}).gguf, "blk.1.ffn_down.weight", "blk.1.ffn_dawn.weight"));
  ASSERT_FALSE(weights);
  EXPECT_NE(weights.error().detail.find("blk.1.ffn_down.weight"), std::string::npos) << weights.error().detail;
}

TEST(Weights, ATensorThatTheForwardPassWouldIgnoreIsRefused) {
  // A second, spare layer looks like any tensor that this forward pass does not know.
  const Bytes spare = with_value(make_tiny_model({}).gguf, "llama.block_count", 1);
  const Result<Weights> weights = load(spare);
  ASSERT_FALSE(weights);
  EXPECT_EQ(weights.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(weights.error().detail.find("blk.1."), std::string::npos) << weights.error().detail;
}

TEST(Weights, AShapeThatContradictsTheMetadataIsAnErrorWithBoth) {
  const Result<Weights> weights = load(with_value(make_tiny_model({}).gguf, "llama.feed_forward_length", 128));
  ASSERT_FALSE(weights);
  EXPECT_EQ(weights.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(weights.error().detail.find("96"), std::string::npos) << weights.error().detail;
  EXPECT_NE(weights.error().detail.find("128"), std::string::npos) << weights.error().detail;
}

TEST(Weights, MetadataThatAskForMoreThanTheFileIsRefusedBeforeMemoryIsTaken) {
  const Result<Weights> weights =
      load(with_value(with_value(make_tiny_model({}).gguf, "llama.block_count", 512), "llama.embedding_length", 4096));
  ASSERT_FALSE(weights);
  EXPECT_EQ(weights.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(weights.error().detail.find("bytes of norms"), std::string::npos) << weights.error().detail;
}

TEST(Weights, AnUntiedClassifierIsUsed) {
  const Result<Weights> weights = load(make_tiny_model({.tied = false}).gguf);
  ASSERT_TRUE(weights) << weights.error().detail;
  EXPECT_EQ(weights->classifier.rows, TinyModel::kTinyVocab);
}

TEST(ModelId, DiffersWithEveryByteAndWithTheBlockSize) {
  const TinyModel model = make_tiny_model({});
  const GgufFile file = model.open();
  const ModelConfig config = *read_model_config(file);
  const ModelId id = compute_model_id(file, config, 64);
  EXPECT_EQ(compute_model_id(model.open(), config, 64), id);
  EXPECT_NE(compute_model_id(file, config, 32), id);
  ModelConfig other = config;
  other.rope_theta = 10001.0;
  EXPECT_NE(compute_model_id(file, other, 64), id);
  Bytes changed = model.gguf;
  changed.back() ^= std::byte{1};
  const Result<GgufFile> changed_file = GgufFile::from_bytes(std::move(changed));
  ASSERT_TRUE(changed_file);
  EXPECT_NE(compute_model_id(*changed_file, config, 64), id);
}

}  // namespace
}  // namespace spillway
