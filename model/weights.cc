#include "model/weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>

#include "common/check.h"
#include "common/quote.h"
#include "model/rope_config.h"

namespace spillway {
namespace {

std::optional<StoredType> stored_type(GgufType type) {
  switch (type) {
    case GgufType::kF32: return StoredType::kF32;
    case GgufType::kF16: return StoredType::kF16;
    case GgufType::kBf16: return StoredType::kBf16;
    case GgufType::kQ8_0: return StoredType::kQ8_0;
    case GgufType::kQ4_0: return StoredType::kQ4_0;
    case GgufType::kQ4_1: return StoredType::kQ4_1;
    case GgufType::kQ5_0: return StoredType::kQ5_0;
    case GgufType::kQ5_1: return StoredType::kQ5_1;
    case GgufType::kQ4_K: return StoredType::kQ4_K;
    case GgufType::kQ5_K: return StoredType::kQ5_K;
    case GgufType::kQ6_K: return StoredType::kQ6_K;
  }
  return std::nullopt;
}

// Takes tensors out of the file by name and checks their shapes; remembers the first error and the names taken.
class Loader {
 public:
  // With `jobs`, packs nothing and says there what it would pack.
  Loader(const GgufFile& file, const ModelConfig& config, Backend& backend, std::span<const PackedMatrix> packed,
         std::vector<PackJob>* jobs, std::span<float> vectors)
      : file_(file), config_(config), backend_(backend), packed_(packed), jobs_(jobs), vectors_(vectors) {}

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

  // A matrix of whole heads of Q or K.
  FileTensor heads(const std::string& name, uint32_t rows, uint32_t cols) {
    FileTensor tensor = matrix(name, rows, cols);
    tensor.half_split_rows = half_split();
    return tensor;
  }

  // One vector of these tensors in a row, next to the other vectors in the backend's memory.
  struct Part {
    std::string name;
    uint32_t count = 0;
    bool heads = false;  // in the order of heads()
  };
  TensorView vector(std::initializer_list<Part> parts) {
    uint32_t count = 0;
    for (const Part& part : parts) count += part.count;
    CHECK(vectors_.size() >= count);
    const std::span<float> values = vectors_.first(count);
    uint32_t at = 0;
    for (const Part& part : parts) {
      copy(part, values.subspan(at, part.count));
      at += part.count;
    }
    vectors_ = vectors_.subspan(count);
    return {.data = std::as_writable_bytes(values).data(), .type = DataType::kF32, .shape = {count, 1, 1}};
  }

  template <size_t N>
  Weight pack(const std::array<FileTensor, N>& tensors, PackOrder order) {
    if (error_) return {};  // a shape that failed must not reach the backend
    const size_t index = matrices_++;
    if (jobs_ != nullptr) {
      jobs_->push_back({{tensors.begin(), tensors.end()}, order});
      return {};
    }
    if (packed_.empty()) return backend_.pack(tensors, order);
    const size_t bytes = backend_.packed_bytes(tensors, order);
    if (index >= packed_.size() || packed_[index].name != tensors[0].name || packed_[index].bytes.size() != bytes) {
      set_error(ErrorCode::kCorrupt,
                fmt::format("packed weights: matrix {} is not the {} bytes of {}", index, bytes, tensors[0].name));
      return {};
    }
    return backend_.adopt(tensors, order, packed_[index].bytes);
  }

  void mark_taken(const std::string& name) { taken_.insert(name); }  // read elsewhere
  bool has(const std::string& name) const { return file_.tensor(name).has_value(); }
  bool failed() const { return error_.has_value(); }

  std::optional<Error> finish() {
    for (const GgufTensor& tensor : file_.tensors()) {
      if (error_) break;
      if (!taken_.contains(tensor.name))
        set_error(ErrorCode::kUnsupported,
                  fmt::format("tensor {} has no place in the forward pass of {}: this model needs something that is "
                              "not supported (another bias, an expert)",
                              quote_foreign(tensor.name), config_.architecture.name));
    }
    if (!packed_.empty() && packed_.size() != matrices_)
      set_error(ErrorCode::kCorrupt,
                fmt::format("packed weights hold {} matrices, this model has {}", packed_.size(), matrices_));
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

  uint32_t half_split() const { return config_.architecture.rope_order == RopeOrder::kHalves ? config_.head_dim : 0u; }
  void copy(const Part& part, std::span<float> out) {
    const GgufTensor* tensor = take(part.name, {part.count});
    if (tensor == nullptr) return;
    if (tensor->type != GgufType::kF32 || tensor->bytes.size() != out.size_bytes())
      return set_error(ErrorCode::kUnsupported,
                       fmt::format("vector {} is not stored as F32, which is what is supported", part.name));
    const uint32_t run = part.heads ? half_split() : 0;
    for (uint32_t i = 0; i < part.count; ++i) {
      const uint32_t source = run == 0 ? i : half_split_source(i, run);
      std::memcpy(&out[i], tensor->bytes.data() + size_t{source} * sizeof(float), sizeof(float));
    }
  }

  const GgufFile& file_;
  const ModelConfig& config_;
  Backend& backend_;
  const std::span<const PackedMatrix> packed_;
  std::vector<PackJob>* const jobs_;
  std::span<float> vectors_;  // what is left of their memory
  size_t matrices_ = 0;       // asked for so far
  std::set<std::string> taken_;
  std::optional<Error> error_;
};

// Values of all norms and biases.
size_t vector_values(const ModelConfig& config) {
  const size_t layer = 2 * size_t{config.hidden} + (config.architecture.qkv_bias ? config.qkv_features() : 0) +
                       (config.architecture.qk_norm ? 2 * size_t{config.head_dim} : 0);
  return config.layer_count * layer + config.hidden;
}

LayerWeights load_layer(Loader& loader, const ModelConfig& config, uint16_t layer) {
  const auto name = [&](const char* what) { return fmt::format("blk.{}.{}.weight", layer, what); };
  const auto bias = [&](const char* what) { return fmt::format("blk.{}.{}.bias", layer, what); };
  const uint32_t q_rows = config.attention_features();
  const uint32_t kv_rows = uint32_t{config.kv_heads} * config.head_dim;
  LayerWeights weights;
  weights.attention_norm = loader.vector({{name("attn_norm"), config.hidden}});
  weights.mlp_norm = loader.vector({{name("ffn_norm"), config.hidden}});
  if (config.architecture.qkv_bias)
    weights.qkv_bias = loader.vector(
        {{bias("attn_q"), q_rows, true}, {bias("attn_k"), kv_rows, true}, {bias("attn_v"), kv_rows, false}});
  if (config.architecture.qk_norm) {
    weights.q_norm = loader.vector({{name("attn_q_norm"), config.head_dim, true}});
    weights.k_norm = loader.vector({{name("attn_k_norm"), config.head_dim, true}});
  }
  weights.qkv = loader.pack<3>(
      {loader.heads(name("attn_q"), q_rows, config.hidden), loader.heads(name("attn_k"), kv_rows, config.hidden),
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

namespace {

Result<Weights> load(const GgufFile& file, const ModelConfig& config, Backend& backend,
                     std::span<const PackedMatrix> packed, std::vector<PackJob>* jobs) {
  const size_t bytes = vector_values(config) * sizeof(float);
  if (bytes > file.bytes().size())  // before that memory is asked for
    return fail(ErrorCode::kCorrupt, fmt::format("{} layers of {} features have {} bytes of norms and biases, the file "
                                                 "has {} bytes",
                                                 config.layer_count, config.hidden, bytes, file.bytes().size()));
  const std::span<std::byte> memory = backend.allocate(bytes);
  Loader loader(file, config, backend, packed, jobs, {reinterpret_cast<float*>(memory.data()), vector_values(config)});
  if (!config.rope.divisors.empty()) loader.mark_taken(kRopeFactorsTensor);
  Weights weights;
  weights.embedding = loader.matrix("token_embd.weight", config.vocab, config.hidden);
  for (uint16_t layer = 0; layer < config.layer_count && !loader.failed(); ++layer)
    weights.layers.push_back(load_layer(loader, config, layer));
  weights.final_norm = loader.vector({{"output_norm.weight", config.hidden}});
  weights.classifier = loader.pack<1>(
      {loader.has("output.weight") ? loader.matrix("output.weight", config.vocab, config.hidden) : weights.embedding},
      PackOrder::kRows);
  if (std::optional<Error> error = loader.finish()) return tl::unexpected<Error>(std::move(*error));
  return weights;
}

}  // namespace

Result<Weights> load_weights(const GgufFile& file, const ModelConfig& config, Backend& backend,
                             std::span<const PackedMatrix> packed) {
  return load(file, config, backend, packed, nullptr);
}

Result<std::vector<PackJob>> pack_jobs(const GgufFile& file, const ModelConfig& config, Backend& backend) {
  std::vector<PackJob> jobs;
  if (Result<Weights> weights = load(file, config, backend, {}, &jobs); !weights)
    return tl::unexpected<Error>(std::move(weights.error()));
  return jobs;
}

}  // namespace spillway
