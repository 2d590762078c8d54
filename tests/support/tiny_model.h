#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf.h"

namespace spillway {

// How large a synthetic model of the Llama family is and how its weights are stored.
struct TinyModelOptions {
  uint64_t seed = 1;
  std::string architecture = "llama";  // or "qwen2", "qwen3": with the biases, norms and RoPE order of each
  uint32_t layers = 2, hidden = 64, heads = 4, kv_heads = 2, head_dim = 16, feed_forward = 96;
  uint32_t context = 1024;
  // kMixed: another type from tensor to tensor. kQ4_K_M: Q4_K, and Q6_K where such files have it; kEvery: all types in
  // turn. Those two REQUIRE hidden, feed_forward and heads * head_dim to be multiples of 256.
  enum class Types : uint8_t { kF32, kBf16, kQ8_0, kQ4_1, kMixed, kQ4_K_M, kEvery };
  Types types = Types::kMixed;
  bool tied = true;                // no output.weight: the classifier is the embedding
  const char* rope_type = "none";  // rope.scaling.type; nullptr: the key is absent
  float rope_factor = 0;           // not 0: rope_factor_key says it
  const char* rope_factor_key = "rope.scaling.factor";
  std::vector<float> rope_divisors{};                  // rope_freqs.weight, where there are any
  uint32_t sliding_window = 0;                         // not 0: the key is there
  bool poisoned = false;                               // the final norm holds a NaN: every logit is one
  std::string poisoned_tensor = "output_norm.weight";  // an F32 one, where it is to be another
  float poison = std::numeric_limits<float>::quiet_NaN();
};

// One tensor as stored, and the exact values that its bytes stand for. rows == 1: a vector.
struct TinyTensor {
  std::string name;
  GgufType type = GgufType::kF32;
  uint32_t rows = 0, cols = 0;
  std::vector<std::byte> bytes;
  std::vector<float> values;  // [rows, cols]
};

// A complete small model with a byte-level tokeniser (vocabulary kTinyVocab), the same for the same options. Its
// weights are drawn in their stored form, so `values` need no dequantiser of the product.
struct TinyModel {
  static constexpr uint32_t kTinyVocab = 300;
  TinyModelOptions options;
  std::vector<TinyTensor> tensors;
  std::vector<std::byte> gguf;                                    // the file
  const std::vector<float>& values(std::string_view name) const;  // REQUIRES: there is such a tensor (CHECK)
  GgufFile open() const;                                          // CHECKs that the file is accepted
};
TinyModel make_tiny_model(const TinyModelOptions& options);

// A tiny model as a file in the temporary folder, removed with this object (a mapping of it stays valid).
class TinyModelFile {
 public:
  explicit TinyModelFile(const TinyModelOptions& options);  // CHECKs that the disk took it
  TinyModelFile(const TinyModelFile&) = delete;
  TinyModelFile& operator=(const TinyModelFile&) = delete;
  ~TinyModelFile();
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace spillway
