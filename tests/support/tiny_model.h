#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf.h"

namespace spillway {

// How large a synthetic Llama model is and how its weights are stored.
struct TinyModelOptions {
  uint64_t seed = 1;
  uint32_t layers = 2, hidden = 64, heads = 4, kv_heads = 2, head_dim = 16, feed_forward = 96;
  uint32_t context = 1024;
  enum class Types : uint8_t { kF32, kBf16, kQ8_0, kQ4_1, kMixed };  // kMixed: another type from tensor to tensor
  Types types = Types::kMixed;
  bool tied = true;       // no output.weight: the classifier is the embedding
  float rope_factor = 0;  // not 0: rope_factor_key says it, in place of a type that says "none"
  const char* rope_factor_key = "llama.rope.scaling.factor";
  bool poisoned = false;  // the final norm holds a NaN: every logit is one
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
