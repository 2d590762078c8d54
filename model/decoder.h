#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "kernels/attention.h"
#include "kernels/backend.h"
#include "model/forward_buffers.h"
#include "model/layer_gate.h"
#include "model/model_config.h"
#include "model/step_threads.h"
#include "model/token_batch.h"
#include "model/weights.h"

namespace spillway {

// The Llama-family forward pass over paged KV (Touvron et al. 2023): embed, layers of {norm, qkv, rope + append,
// attention, out + residual, norm, SwiGLU, down + residual}, norm, classifier. Biases and norms of Q and K that an
// Architecture has are part of "rope + append". bf16 activations, f32 residual stream.
// Compute thread.
class Decoder {
 public:
  // Allocates activations for `rows_max` rows, `logit_rows_max` of which may reach the classifier at
  // once, and RoPE tables for
  // `positions_max`. `backend` and `weights` must outlive this. Throws SetupError when the backend has no memory.
  Decoder(Backend& backend, const ModelConfig& config, const Weights& weights, uint32_t rows_max,
          uint32_t logit_rows_max, uint32_t positions_max);

  enum class LastLayer : uint8_t {
    kLogitRows,  // after the last layer's append only rows that need logits go on
    kAllRows,    // every row runs every layer to its end: the plain form, for `explain`
  };
  // f32 [logit_rows, vocab], valid until the next call; nothing when the gate gave up. The bits of a row of logits are
  // the same in both forms, and whatever other rows are in the batch. Rows that need logits are cheapest side by side:
  // each run of neighbours is one product in the last layer.
  // REQUIRES: 1..rows_max tokens, each < vocab; spans cover the rows in order; positions below positions_max; the block
  // table names a slot of `kv` for every position of a span from 0; logit rows ascend.
  // More than logit_rows_max rows of logits come in pieces: these are the first, logits_from() gives those behind.
  [[nodiscard]] std::optional<TensorView> forward(const TokenBatch& batch, const SlotArena& kv, LayerGate& gate,
                                                  LastLayer last_layer = LastLayer::kLogitRows);

  // Rows [first, first + logit_rows_max) of the last batch's logit rows, as far as there are. Valid until the next
  // call.
  TensorView logits_from(uint32_t first);

  // At first each step is shared by all threads of the backend.
  void use_step_threads(StepThreads threads) { step_threads_ = std::move(threads); }
  const StepThreads& step_threads() const { return step_threads_; }

  const ModelConfig& config() const { return config_; }
  uint32_t rows_max() const { return limits_.rows_max; }
  uint32_t logit_rows_max() const { return limits_.logit_rows_max; }
  uint32_t positions_max() const { return limits_.positions_max; }

  static size_t buffer_bytes(const ModelConfig& config, uint32_t rows_max, uint32_t logit_rows_max,
                                 uint32_t positions_max);

 private:
  struct RowRun {  // neighbouring rows of the batch
    uint32_t first = 0, count = 0;
  };
  void check(const TokenBatch& batch) const;
  void find_logit_runs(const TokenBatch& batch);
  void append(const TokenBatch& batch, const SlotArena& kv, uint16_t layer);
  void attend(const TokenBatch& batch, const SlotArena& kv, uint16_t layer, std::span<const TokenSpan> spans);
  void finish_layer(uint16_t layer, const RowRun& run);

  Backend& backend_;
  const ModelConfig config_;
  const Weights& weights_;
  const ForwardLimits limits_;
  const ForwardBuffers buffers_;
  StepThreads step_threads_;
  // Of the batch at hand: rows that need logits as runs, and as spans for the last layer's attention.
  std::vector<RowRun> logit_runs_;
  std::vector<TokenSpan> logit_spans_;
};

}  // namespace spillway
