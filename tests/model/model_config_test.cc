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
  EXPECT_EQ(config->rope.theta_base, 10000.0);
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
                        {"llama.attention.key_length", 24},
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

TEST(ModelConfig, KeysAndErrorsCarryTheArchitecturesOwnPrefix) {
  for (const std::string architecture : {"qwen2", "qwen3"}) {
    const Bytes good = make_tiny_model({.architecture = architecture, .head_dim = 32}).gguf;
    const Result<ModelConfig> config = read(good);
    ASSERT_TRUE(config) << config.error().detail;
    EXPECT_EQ(config->architecture.name, architecture);
    EXPECT_EQ(config->architecture.qkv_bias, architecture == "qwen2");
    EXPECT_EQ(config->architecture.qk_norm, architecture == "qwen3");
    EXPECT_EQ(config->architecture.rope_order, RopeOrder::kHalves);
    EXPECT_EQ(config->head_dim, 32);  // of 64 features and 4 heads
    for (const std::string key : {"block_count", "attention.head_count_kv", "rope.dimension_count"}) {
      const Result<ModelConfig> wrong = read(with_value(good, architecture + "." + key, 100000));
      ASSERT_FALSE(wrong) << key;
      EXPECT_NE(wrong.error().detail.find(architecture + "." + key), std::string::npos) << wrong.error().detail;
    }
  }
}

TEST(ModelConfig, ContextEndsWithTheAttentionWindow) {
  const Result<ModelConfig> narrow = read(make_tiny_model({.context = 1024, .sliding_window = 300}).gguf);
  ASSERT_TRUE(narrow) << narrow.error().detail;
  EXPECT_EQ(narrow->context_max, 300u);
  EXPECT_EQ(narrow->sliding_window, 300u);
  const Result<ModelConfig> wide = read(make_tiny_model({.context = 1024, .sliding_window = 1024}).gguf);
  ASSERT_TRUE(wide) << wide.error().detail;
  EXPECT_EQ(wide->context_max, 1024u);
  EXPECT_EQ(wide->sliding_window, 0u);
}

TEST(ModelConfig, HeadDimensionsFrom16To256AreReadAndOthersRefused) {
  for (const uint32_t head_dim : {16u, 48u, 80u, 96u, 112u, 128u, 256u})
    EXPECT_EQ(read(make_tiny_model({.head_dim = head_dim}).gguf)->head_dim, head_dim);
  for (const uint32_t head_dim : {8u, 40u, 72u, 272u}) {
    const Result<ModelConfig> config = read(make_tiny_model({.head_dim = head_dim}).gguf);
    ASSERT_FALSE(config) << head_dim;
    EXPECT_EQ(config.error().code, ErrorCode::kUnsupported);
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

TEST(Weights, ABiasOrNormThatTheArchitectureHasMustBeThereInItsShape) {
  const auto fails = [](Bytes bytes, const std::string& word) {
    const Result<Weights> weights = load(std::move(bytes));
    ASSERT_FALSE(weights) << word;
    EXPECT_NE(weights.error().detail.find(word), std::string::npos) << weights.error().detail;
  };
  const Bytes qwen2 = make_tiny_model({.architecture = "qwen2"}).gguf;
  const Bytes qwen3 = make_tiny_model({.architecture = "qwen3"}).gguf;
  ASSERT_TRUE(load(qwen2) && load(qwen3));
  fails(with_text(qwen2, "blk.1.attn_k.bias", "blk.1.attn_x.bias"), "blk.1.attn_k.bias");
  fails(with_text(qwen3, "blk.0.attn_q_norm.weight", "blk.0.attn_x_norm.weight"), "blk.0.attn_q_norm.weight");
  fails(with_value(qwen3, "blk.0.attn_k_norm.weight", 15), "blk.0.attn_k_norm.weight");  // its first extent
}

TEST(Weights, ABiasThatTheArchitectureLacksIsRefused) {
  Bytes other = make_tiny_model({.architecture = "qwen2"}).gguf;
  for (size_t at = 0; at + 5 <= other.size(); ++at)
    if (std::memcmp(other.data() + at, "qwen2", 5) == 0) std::memcpy(other.data() + at, "qwen3", 5);
  const Result<Weights> weights = load(other);
  ASSERT_FALSE(weights);
  EXPECT_NE(weights.error().detail.find("attn_q_norm"), std::string::npos) << weights.error().detail;
  // As Llama, all that it needs is there, and more.
  const TinyModel model = make_tiny_model({.architecture = "qwen2"});
  const GgufFile file = model.open();
  ModelConfig config = *read_model_config(file);
  config.architecture = kLlama;
  const auto backend = make_backend({.isa = "scalar", .threads = 1});
  const Result<Weights> ignored = load_weights(file, config, *backend);
  ASSERT_FALSE(ignored);
  EXPECT_EQ(ignored.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(ignored.error().detail.find("bias"), std::string::npos) << ignored.error().detail;
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
  const ModelId id = compute_model_id(digest_of(file), config, 64);
  EXPECT_EQ(compute_model_id(digest_of(model.open()), config, 64), id);
  EXPECT_NE(compute_model_id(digest_of(file), config, 32), id);
  ModelConfig other = config;
  other.rope.theta_base = 10001.0;
  EXPECT_NE(compute_model_id(digest_of(file), other, 64), id);
  Bytes changed = model.gguf;
  changed.back() ^= std::byte{1};
  const Result<GgufFile> changed_file = GgufFile::from_bytes(std::move(changed));
  ASSERT_TRUE(changed_file);
  EXPECT_NE(compute_model_id(digest_of(*changed_file), config, 64), id);
}

}  // namespace
}  // namespace spillway
