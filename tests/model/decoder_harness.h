#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/ids.h"
#include "formats/gguf.h"
#include "kernels/backend.h"
#include "kv/block.h"
#include "model/decoder.h"
#include "model/layer_gate.h"
#include "model/model_config.h"
#include "model/weights.h"

namespace spillway {

// Makes another model of a file's: nothing, where they are empty.
struct ModelChange {
  std::function<void(ModelConfig&)> config{};  // before weights are loaded
  std::function<void(LayerWeights&)> layer{};  // each, once loaded
};

// A Decoder with all it needs, and forward passes in terms of tokens, positions and slots.
class DecoderHarness {
 public:
  struct Limits {
    std::string isa = "scalar";
    uint32_t threads = 1;
    uint32_t rows_max = 512, logit_rows_max = 512, positions_max = 1024, slot_count = 64;
    KvDtype kv = KvDtype::kBf16;
  };
  DecoderHarness(const GgufFile& file, const Limits& limits, const ModelChange& change = {});

  struct Part {  // rows of one sequence in a batch
    std::vector<TokenId> tokens;
    uint32_t position_first = 0;
    std::vector<uint32_t> slots;  // from position 0
    bool all_logits = false;      // else of its last row
    bool no_logits = false;
  };
  // f32 rows in order of the batch; empty when the gate gave up.
  std::vector<std::vector<float>> forward(std::span<const Part> parts, LayerGate& gate,
                                          Decoder::LastLayer last_layer = Decoder::LastLayer::kLogitRows);
  // One sequence in `slots`, in chunks of `chunk_tokens`: the logits of its last row.
  std::vector<float> last_logits(std::span<const TokenId> tokens, uint32_t chunk_tokens,
                                 const std::vector<uint32_t>& slots);

  Backend& backend() { return *backend_; }
  const ModelConfig& config() const { return config_; }
  const SlotArena& kv() const { return kv_; }

 private:
  std::unique_ptr<Backend> backend_;
  ModelConfig config_;
  Weights weights_;
  SlotArena kv_;
  Decoder decoder_;
};

// 0, 1, ... count - 1.
std::vector<uint32_t> slots_from(uint32_t first, uint32_t count);

// `count` token ids below `vocab`, the same for the same seed.
std::vector<TokenId> draw_tokens(uint64_t seed, uint32_t count, uint32_t vocab);

// Equal as bytes: NaN equals itself, 0 differs from -0.
bool same_bits(std::span<const float> a, std::span<const float> b);

}  // namespace spillway
