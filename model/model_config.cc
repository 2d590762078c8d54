#include "model/model_config.h"

#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <string>
#include <string_view>

#include "common/quote.h"
#include "kernels/attention.h"

namespace spillway {
namespace {

// Bounds far above any Llama-family model in the field, so that no product of two or three of them can overflow 64
// bits.
constexpr uint64_t kLayersMax = 512, kHeadsMax = 512, kFeaturesMax = 1u << 17, kVocabMax = 1u << 20;
constexpr uint64_t kContextMax = 1u << 20;
constexpr uint64_t kHeadDimStep = 16;

Result<uint64_t> bounded(const GgufFile& file, std::string_view key, uint64_t low, uint64_t high) {
  Result<uint64_t> value = file.get_uint(key);
  if (!value) return value;
  if (*value < low || *value > high)
    return fail(ErrorCode::kUnsupported, fmt::format("{} is {}, supported is {} to {}", key, *value, low, high));
  return value;
}

Result<uint64_t> bounded_or(const GgufFile& file, std::string_view key, uint64_t absent, uint64_t low, uint64_t high) {
  return file.contains(key) ? bounded(file, key, low, high) : Result<uint64_t>(absent);
}

Result<double> real(const GgufFile& file, std::string_view key, double low, double high) {
  Result<double> value = file.get_float(key);
  if (!value) return value;
  if (!std::isfinite(*value) || *value < low || *value > high)
    return fail(ErrorCode::kUnsupported, fmt::format("{} is {}, supported is {} to {}", key, *value, low, high));
  return value;
}

// Reads one number after another and keeps the first error, so that the reading below is one line a key.
class Reader {
 public:
  explicit Reader(const GgufFile& file) : file_(file) {}
  uint64_t required(std::string_view key, uint64_t low, uint64_t high) { return take(bounded(file_, key, low, high)); }
  uint64_t optional(std::string_view key, uint64_t absent, uint64_t low, uint64_t high) {
    return take(bounded_or(file_, key, absent, low, high));
  }
  double required_real(std::string_view key, double low, double high) { return take(real(file_, key, low, high)); }
  double optional_real(std::string_view key, double absent, double low, double high) {
    return file_.contains(key) ? required_real(key, low, high) : absent;
  }
  const std::optional<Error>& error() const { return error_; }

 private:
  template <class T>
  T take(const Result<T>& value) {
    if (value) return *value;
    if (!error_) error_ = value.error();
    return T{};
  }
  const GgufFile& file_;
  std::optional<Error> error_;
};

Result<uint16_t> read_head_dim(const GgufFile& file, const ModelConfig& config) {
  constexpr std::string_view kKey = "llama.attention.key_length";
  uint64_t head_dim = config.hidden / config.heads;
  if (file.contains(kKey)) {
    const Result<uint64_t> stated = file.get_uint(kKey);
    if (!stated) return tl::unexpected<Error>(stated.error());
    head_dim = *stated;
  } else if (config.hidden % config.heads != 0) {
    return fail(ErrorCode::kCorrupt, fmt::format("llama.embedding_length {} is not a multiple of head_count {}",
                                                 config.hidden, config.heads));
  }
  if (head_dim == 0 || head_dim > kHeadDimMax || head_dim % kHeadDimStep != 0)
    return fail(ErrorCode::kUnsupported, fmt::format("head dimension is {}, supported are multiples of {} up to {}",
                                                     head_dim, kHeadDimStep, kHeadDimMax));
  return static_cast<uint16_t>(head_dim);
}

// A factor without a type is linear scaling to llama.cpp (llama-model.cpp, "rope_freq_scale"); 0 says none.
Result<void> check_rope(const GgufFile& file) {
  constexpr std::string_view kType = "llama.rope.scaling.type";
  if (file.contains(kType)) {
    const Result<std::string> type = file.get_string(kType);
    if (!type) return tl::unexpected<Error>(type.error());
    if (*type != "none")
      return fail(ErrorCode::kUnsupported,
                  fmt::format("{} is {}, supported is no scaling (\"none\" or absent)", kType, quote_foreign(*type)));
  }
  // Of an explicit "none" only attn_factor is left, which multiplies all the same.
  std::vector<std::string_view> keys{"llama.rope.scaling.attn_factor"};
  if (!file.contains(kType)) keys.insert(keys.end(), {"llama.rope.scaling.factor", "llama.rope.scale_linear"});
  for (const std::string_view key : keys) {
    if (!file.contains(key)) continue;
    const Result<double> factor = file.get_float(key);
    if (!factor) return tl::unexpected<Error>(factor.error());
    if (*factor != 1.0 && (*factor != 0.0 || key == keys.front()))
      return fail(ErrorCode::kUnsupported,
                  fmt::format("{} is {}, supported is no scaling (1 or absent)", key, *factor));
  }
  return {};
}

// What the numbers must be to each other.
Result<void> check_consistent(const GgufFile& file, const ModelConfig& config) {
  if (config.heads % config.kv_heads != 0)
    return fail(ErrorCode::kCorrupt, fmt::format("llama.attention.head_count {} is not a multiple of head_count_kv {}",
                                                 config.heads, config.kv_heads));
  if (config.heads / config.kv_heads > kHeadsPerKvHeadMax)
    return fail(ErrorCode::kUnsupported,
                fmt::format("llama.attention.head_count {} is {} query heads per KV head, supported are up to {}",
                            config.heads, config.heads / config.kv_heads, kHeadsPerKvHeadMax));
  for (const std::string_view key : {"llama.attention.value_length", "llama.rope.dimension_count"}) {
    if (!file.contains(key)) continue;
    const Result<uint64_t> value = file.get_uint(key);
    if (!value) return tl::unexpected<Error>(value.error());
    if (*value != config.head_dim)
      return fail(ErrorCode::kUnsupported, fmt::format("{} is {}, supported is the head dimension {} (K, V and rotated "
                                                       "part of equal size)",
                                                       key, *value, config.head_dim));
  }
  return {};
}

// The embedding says how many tokens there are; metadata must agree where it speaks.
Result<uint64_t> read_vocab(const GgufFile& file) {
  const Result<const GgufTensor*> embedding = file.tensor("token_embd.weight");
  if (!embedding) return tl::unexpected<Error>(embedding.error());
  const std::vector<uint64_t>& shape = (*embedding)->shape;
  if (shape.size() != 2 || shape[1] == 0 || shape[1] > kVocabMax)
    return fail(ErrorCode::kUnsupported,
                fmt::format("token_embd.weight has {} dimensions and {} rows, supported is [hidden, vocab] with a "
                            "vocabulary of 1 to {}",
                            shape.size(), shape.size() == 2 ? shape[1] : 0, kVocabMax));
  const Result<uint64_t> stated = bounded_or(file, "llama.vocab_size", shape[1], 1, kVocabMax);
  if (stated && *stated != shape[1])
    return fail(ErrorCode::kCorrupt,
                fmt::format("llama.vocab_size is {}, token_embd.weight has {} rows", *stated, shape[1]));
  return stated;
}

}  // namespace

KvLayout ModelConfig::kv_layout(uint16_t block_tokens) const {
  return {.layer_count = layer_count, .kv_heads = kv_heads, .head_dim = head_dim, .block_tokens = block_tokens};
}

Result<ModelConfig> read_model_config(const GgufFile& file) {
  const Result<std::string> architecture = file.get_string("general.architecture");
  if (!architecture) return tl::unexpected<Error>(architecture.error());
  if (*architecture != "llama")
    return fail(ErrorCode::kUnsupported,
                fmt::format("general.architecture is {}, supported is \"llama\"", quote_foreign(*architecture)));
  Reader reader(file);
  ModelConfig config;
  config.layer_count = static_cast<uint16_t>(reader.required("llama.block_count", 1, kLayersMax));
  config.hidden = static_cast<uint32_t>(reader.required("llama.embedding_length", 1, kFeaturesMax));
  config.feed_forward = static_cast<uint32_t>(reader.required("llama.feed_forward_length", 1, kFeaturesMax));
  config.context_max = static_cast<uint32_t>(reader.required("llama.context_length", 1, kContextMax));
  config.heads = static_cast<uint16_t>(reader.required("llama.attention.head_count", 1, kHeadsMax));
  config.kv_heads = static_cast<uint16_t>(reader.optional("llama.attention.head_count_kv", config.heads, 1, kHeadsMax));
  config.rms_epsilon = static_cast<float>(reader.required_real("llama.attention.layer_norm_rms_epsilon", 1e-12, 1e-1));
  config.rope_theta = reader.optional_real("llama.rope.freq_base", 10000.0, 1.0, 1e12);
  reader.optional("llama.expert_count", 0, 0, 0);
  if (reader.error()) return tl::unexpected<Error>(*reader.error());
  const Result<uint16_t> head_dim = read_head_dim(file, config);
  if (!head_dim) return tl::unexpected<Error>(head_dim.error());
  config.head_dim = *head_dim;
  const Result<void> rope = check_rope(file);
  if (!rope) return tl::unexpected<Error>(rope.error());
  const Result<void> consistent = check_consistent(file, config);
  if (!consistent) return tl::unexpected<Error>(consistent.error());
  const Result<uint64_t> vocab = read_vocab(file);
  if (!vocab) return tl::unexpected<Error>(vocab.error());
  config.vocab = static_cast<uint32_t>(*vocab);
  return config;
}

}  // namespace spillway
