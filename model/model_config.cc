#include "model/model_config.h"

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "common/quote.h"
#include "kernels/attention.h"
#include "model/metadata_reader.h"
#include "model/rope_config.h"

namespace spillway {
namespace {

// Bounds far above any Llama-family model in the field, so that no product of two or three of them can overflow 64
// bits.
constexpr uint64_t kLayersMax = 512, kHeadsMax = 512, kFeaturesMax = 1u << 17, kVocabMax = 1u << 20;
constexpr uint64_t kContextMax = 1u << 20;
constexpr uint64_t kHeadDimStep = 16;

void read_head_dim(MetadataReader& reader, ModelConfig& config) {
  if (!reader.has("attention.key_length") && config.hidden % config.heads != 0)
    return reader.set_error(ErrorCode::kCorrupt,
                            fmt::format("{} {} is not a multiple of head_count {}", reader.key("embedding_length"),
                                        config.hidden, config.heads));
  const uint64_t head_dim =
      reader.optional("attention.key_length", config.hidden / config.heads, kHeadDimStep, kHeadDimMax);
  if (!reader.error() && (head_dim < kHeadDimStep || head_dim > kHeadDimMax || head_dim % kHeadDimStep != 0))
    reader.set_error(ErrorCode::kUnsupported,
                     fmt::format("head dimension is {}, supported are multiples of {} up to {}", head_dim, kHeadDimStep,
                                 kHeadDimMax));
  config.head_dim = static_cast<uint16_t>(head_dim);
}

// Positions beyond a window of attention would see fewer keys than full attention gives them.
void read_context(MetadataReader& reader, ModelConfig& config) {
  config.context_max = static_cast<uint32_t>(reader.required("context_length", 1, kContextMax));
  const auto window = static_cast<uint32_t>(reader.optional("attention.sliding_window", 0, 0, UINT32_MAX));
  if (window == 0 || window >= config.context_max) return;
  config.context_max = config.sliding_window = window;
}

// What the numbers must be to each other.
void check_consistent(MetadataReader& reader, const ModelConfig& config) {
  if (config.heads % config.kv_heads != 0)
    return reader.set_error(ErrorCode::kCorrupt,
                            fmt::format("{} {} is not a multiple of head_count_kv {}",
                                        reader.key("attention.head_count"), config.heads, config.kv_heads));
  if (config.heads / config.kv_heads > kHeadsPerKvHeadMax)
    return reader.set_error(
        ErrorCode::kUnsupported,
        fmt::format("{} {} is {} query heads per KV head, supported are up to {}", reader.key("attention.head_count"),
                    config.heads, config.heads / config.kv_heads, kHeadsPerKvHeadMax));
  for (const std::string_view name : {"attention.value_length", "rope.dimension_count"}) {
    const uint64_t value = reader.optional(name, config.head_dim, 0, UINT32_MAX);
    if (value != config.head_dim)
      reader.set_error(ErrorCode::kUnsupported,
                       fmt::format("{} is {}, supported is the head dimension {} (K, V and rotated part of equal size)",
                                   reader.key(name), value, config.head_dim));
  }
}

// The embedding says how many tokens there are; metadata must agree where it speaks.
void read_vocab(const GgufFile& file, MetadataReader& reader, ModelConfig& config) {
  const Result<const GgufTensor*> embedding = file.tensor("token_embd.weight");
  if (!embedding) return reader.set_error(embedding.error().code, embedding.error().detail);
  const std::vector<uint64_t>& shape = (*embedding)->shape;
  if (shape.size() != 2 || shape[1] == 0 || shape[1] > kVocabMax)
    return reader.set_error(ErrorCode::kUnsupported,
                            fmt::format("token_embd.weight has {} dimensions and {} rows, supported is [hidden, vocab] "
                                        "with a vocabulary of 1 to {}",
                                        shape.size(), shape.size() == 2 ? shape[1] : 0, kVocabMax));
  const uint64_t stated = reader.optional("vocab_size", shape[1], 1, kVocabMax);
  if (stated != shape[1])
    reader.set_error(ErrorCode::kCorrupt, fmt::format("{} is {}, token_embd.weight has {} rows",
                                                      reader.key("vocab_size"), stated, shape[1]));
  config.vocab = static_cast<uint32_t>(shape[1]);
}

}  // namespace

KvLayout ModelConfig::kv_layout(KvDtype dtype) const {
  return {.layer_count = layer_count, .kv_heads = kv_heads, .head_dim = head_dim, .dtype = dtype};
}

Result<ModelConfig> read_model_config(const GgufFile& file) {
  const Result<std::string> name = file.get_string("general.architecture");
  if (!name) return tl::unexpected<Error>(name.error());
  const Architecture* const architecture = find_architecture(*name);
  if (architecture == nullptr)
    return fail(ErrorCode::kUnsupported, fmt::format("general.architecture is {}, supported are {}",
                                                     quote_foreign(*name), architecture_names()));
  MetadataReader reader(file, architecture->name);
  ModelConfig config;
  config.architecture = *architecture;
  config.layer_count = static_cast<uint16_t>(reader.required("block_count", 1, kLayersMax));
  config.hidden = static_cast<uint32_t>(reader.required("embedding_length", 1, kFeaturesMax));
  config.feed_forward = static_cast<uint32_t>(reader.required("feed_forward_length", 1, kFeaturesMax));
  config.heads = static_cast<uint16_t>(reader.required("attention.head_count", 1, kHeadsMax));
  config.kv_heads = static_cast<uint16_t>(reader.optional("attention.head_count_kv", config.heads, 1, kHeadsMax));
  config.rms_epsilon = static_cast<float>(reader.required_real("attention.layer_norm_rms_epsilon", 1e-12, 1e-1));
  read_context(reader, config);
  reader.optional("expert_count", 0, 0, 0);
  if (!reader.error()) read_head_dim(reader, config);
  if (!reader.error()) config.rope = read_rope(file, reader, config.head_dim);
  if (!reader.error()) check_consistent(reader, config);
  if (!reader.error()) read_vocab(file, reader, config);
  if (reader.error()) return tl::unexpected<Error>(*reader.error());
  return config;
}

}  // namespace spillway
