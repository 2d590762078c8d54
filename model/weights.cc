#include "model/weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <cstring>
#include <optional>
#include <set>
#include <string>

#include "common/check.h"
#include "common/quote.h"

namespace spillway {
namespace {

std::optional<StoredType> stored_type(GgufType type) {
  switch (type) {
    case GgufType::kF32: return StoredType::kF32;
    case GgufType::kBf16: return StoredType::kBf16;
    case GgufType::kQ8_0: return StoredType::kQ8_0;
    case GgufType::kQ4_1: return StoredType::kQ4_1;
  }
  return std::nullopt;
}

// Takes tensors out of the file by name and checks their shapes; remembers the first error and the names taken.
class Loader {
 public:
  Loader(const GgufFile& file, const ModelConfig& config, Backend& backend, std::span<const std::byte> packed,
         std::span<std::byte> norms)
      : file_(file), config_(config), backend_(backend), norms_(norms), has_packed_(!packed.empty()), packed_(packed) {}

  FileTensor matrix(const std::string& name, uint32_t rows, uint32_t cols) {
    const GgufTensor* tensor = take(name, {cols, rows});
    if (tensor == nullptr) return {};
    const std::optional<StoredType> type = stored_type(tensor->type);
    if (!type) {
      set_error(ErrorCode::kUnsupported, fmt::format("tensor {} has a type that no kernel reads", name));
      return {};
    }
    return {.name = name, .type = *type, .rows = rows, .cols = cols, .bytes = tensor->bytes};
  }

  // Copied next to the other norms in the backend's memory.
  TensorView norm(const std::string& name) {
    const GgufTensor* tensor = take(name, {config_.hidden});
    if (tensor == nullptr) return {};
    const size_t bytes = size_t{config_.hidden} * sizeof(float);
    if (tensor->type != GgufType::kF32 || tensor->bytes.size() != bytes) {
      set_error(ErrorCode::kUnsupported, fmt::format("norm {} is not stored as F32, which is what is supported", name));
      return {};
    }
    CHECK(norms_.size() >= bytes);
    const TensorView view{.data = norms_.data(), .type = DataType::kF32, .shape = {config_.hidden, 1, 1}};
    std::memcpy(view.data, tensor->bytes.data(), bytes);
    norms_ = norms_.subspan(bytes);
    return view;
  }

  template <size_t N>
  Weight pack(const std::array<FileTensor, N>& tensors, PackOrder order) {
    if (error_) return {};  // a shape that failed must not reach the backend
    if (!has_packed_) return backend_.pack(tensors, order);
    const size_t bytes = backend_.packed_bytes(tensors, order);
    if (page_aligned(bytes) > packed_.size()) {
      set_error(ErrorCode::kCorrupt, fmt::format("packed weights end before tensor {}", tensors[0].name));
      return {};
    }
    const std::span<const std::byte> matrix = packed_.first(bytes);
    packed_ = packed_.subspan(page_aligned(bytes));
    return backend_.adopt(tensors, order, matrix);
  }

  bool has(const std::string& name) const { return file_.tensor(name).has_value(); }
  bool failed() const { return error_.has_value(); }

  std::optional<Error> finish() {
    for (const GgufTensor& tensor : file_.tensors()) {
      if (error_) break;
      if (!taken_.contains(tensor.name))
        set_error(ErrorCode::kUnsupported,
                  fmt::format("tensor {} has no place in the Llama forward pass: this model needs something that is "
                              "not supported (bias, expert, RoPE factors, another architecture)",
                              quote_foreign(tensor.name)));
    }
    if (!packed_.empty())
      set_error(ErrorCode::kCorrupt, fmt::format("packed weights hold {} bytes too many", packed_.size()));
    return error_;
  }

 private:
  void set_error(ErrorCode code, std::string detail) {
    if (!error_) error_ = Error{code, std::move(detail)};
  }
  const GgufTensor* take(const std::string& name, std::vector<uint64_t> shape) {
    const Result<const GgufTensor*> tensor = file_.tensor(name);
    if (!tensor) {
      set_error(tensor.error().code, tensor.error().detail);
      return nullptr;
    }
    if ((*tensor)->shape != shape) {
      set_error(ErrorCode::kCorrupt, fmt::format("tensor {} has shape [{}], expected [{}] from the metadata", name,
                                                 fmt::join((*tensor)->shape, ", "), fmt::join(shape, ", ")));
      return nullptr;
    }
    taken_.insert(name);
    return *tensor;
  }

  const GgufFile& file_;
  const ModelConfig& config_;
  Backend& backend_;
  std::span<std::byte> norms_;  // what is left of the norms' memory
  const bool has_packed_;
  std::span<const std::byte> packed_;  // what is left of it
  std::set<std::string> taken_;
  std::optional<Error> error_;
};

LayerWeights load_layer(Loader& loader, const ModelConfig& config, uint16_t layer) {
  const auto name = [&](const char* what) { return fmt::format("blk.{}.{}.weight", layer, what); };
  const uint32_t q_rows = config.attention_features();
  const uint32_t kv_rows = uint32_t{config.kv_heads} * config.head_dim;
  LayerWeights weights;
  weights.attention_norm = loader.norm(name("attn_norm"));
  weights.mlp_norm = loader.norm(name("ffn_norm"));
  weights.qkv = loader.pack<3>(
      {loader.matrix(name("attn_q"), q_rows, config.hidden), loader.matrix(name("attn_k"), kv_rows, config.hidden),
       loader.matrix(name("attn_v"), kv_rows, config.hidden)},
      PackOrder::kRows);
  weights.attention_out = loader.pack<1>({loader.matrix(name("attn_output"), config.hidden, q_rows)}, PackOrder::kRows);
  weights.gate_up = loader.pack<2>({loader.matrix(name("ffn_gate"), config.feed_forward, config.hidden),
                                    loader.matrix(name("ffn_up"), config.feed_forward, config.hidden)},
                                   PackOrder::kGateUp);
  weights.down =
      loader.pack<1>({loader.matrix(name("ffn_down"), config.hidden, config.feed_forward)}, PackOrder::kRows);
  return weights;
}

}  // namespace

std::vector<const Weight*> Weights::matrices() const {
  std::vector<const Weight*> all;
  for (const LayerWeights& layer : layers)
    all.insert(all.end(), {&layer.qkv, &layer.attention_out, &layer.gate_up, &layer.down});
  all.push_back(&classifier);
  return all;
}

size_t Weights::packed_bytes() const {
  size_t sum = 0;
  for (const Weight* const weight : matrices()) sum += weight->bytes;
  return sum;
}

Result<Weights> load_weights(const GgufFile& file, const ModelConfig& config, Backend& backend,
                             std::span<const std::byte> packed) {
  const size_t norm_bytes = (2 * size_t{config.layer_count} + 1) * config.hidden * sizeof(float);
  if (norm_bytes > file.bytes().size())  // before that memory is asked for
    return fail(ErrorCode::kCorrupt,
                fmt::format("{} layers of {} features have {} bytes of norms, the file has {} bytes",
                            config.layer_count, config.hidden, norm_bytes, file.bytes().size()));
  Loader loader(file, config, backend, packed, backend.allocate(norm_bytes));
  Weights weights;
  weights.embedding = loader.matrix("token_embd.weight", config.vocab, config.hidden);
  for (uint16_t layer = 0; layer < config.layer_count && !loader.failed(); ++layer)
    weights.layers.push_back(load_layer(loader, config, layer));
  weights.final_norm = loader.norm("output_norm.weight");
  weights.classifier = loader.pack<1>(
      {loader.has("output.weight") ? loader.matrix("output.weight", config.vocab, config.hidden) : weights.embedding},
      PackOrder::kRows);
  if (std::optional<Error> error = loader.finish()) return tl::unexpected<Error>(std::move(*error));
  return weights;
}

}  // namespace spillway
