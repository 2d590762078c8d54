#include "model/decoder.h"

#include <algorithm>
#include <cmath>

#include "common/check.h"

namespace spillway {

Decoder::Decoder(Backend& backend, const ModelConfig& config, const Weights& weights, uint32_t rows_max,
                 uint32_t logit_rows_max, uint32_t positions_max)
    : backend_(backend),
      config_(config),
      weights_(weights),
      limits_{.rows_max = rows_max, .logit_rows_max = logit_rows_max, .positions_max = positions_max},
      buffers_(ForwardBuffers::allocate(backend, config, limits_)),
      step_threads_(backend.threads()) {
  CHECK(rows_max > 0 && logit_rows_max > 0 && logit_rows_max <= rows_max && positions_max > 0);
  CHECK(weights.layers.size() == config.layer_count);
  logit_runs_.reserve(logit_rows_max);
  logit_spans_.reserve(logit_rows_max);
}

size_t Decoder::buffer_bytes(const ModelConfig& config, uint32_t rows_max, uint32_t logit_rows_max,
                                 uint32_t positions_max) {
  return ForwardBuffers(nullptr, config,
                        {.rows_max = rows_max, .logit_rows_max = logit_rows_max, .positions_max = positions_max})
      .bytes;
}

void Decoder::check(const TokenBatch& batch) const {
  CHECK(!batch.tokens.empty() && batch.tokens.size() <= limits_.rows_max);
  for (const TokenId token : batch.tokens) CHECK(token < config_.vocab);
  uint32_t row = 0;
  for (const TokenSpan& span : batch.spans) {
    CHECK(span.row_first == row && span.row_count > 0 && span.block_table_row < batch.block_table.shape[0]);
    CHECK(uint64_t{span.position_first} + span.row_count <= limits_.positions_max);
    row += span.row_count;
  }
  CHECK(row == batch.tokens.size());
}

// Rows that need logits, as runs of neighbours (for products) and as parts of the batch's spans (for attention).
void Decoder::find_logit_runs(const TokenBatch& batch) {
  logit_runs_.clear();
  logit_spans_.clear();
  size_t next = 0;
  for (const TokenSpan& span : batch.spans) {
    bool span_open = false;
    for (; next < batch.logit_rows.size() && batch.logit_rows[next] < span.row_first + span.row_count; ++next) {
      const uint32_t row = batch.logit_rows[next];
      CHECK(row >= span.row_first);
      const bool adjoins = !logit_runs_.empty() && logit_runs_.back().first + logit_runs_.back().count == row;
      CHECK(logit_runs_.empty() || row >= logit_runs_.back().first + logit_runs_.back().count);
      if (adjoins) {
        ++logit_runs_.back().count;
      } else {
        logit_runs_.push_back({.first = row, .count = 1});
      }
      if (adjoins && span_open) {
        ++logit_spans_.back().row_count;
      } else {
        logit_spans_.push_back({.row_first = row,
                                .row_count = 1,
                                .position_first = span.position_first + (row - span.row_first),
                                .block_table_row = span.block_table_row});
      }
      span_open = true;
    }
  }
  CHECK(next == batch.logit_rows.size());
}

std::optional<TensorView> Decoder::forward(const TokenBatch& batch, const SlotArena& kv, LayerGate& gate,
                                           LastLayer last_layer) {
  check(batch);
  find_logit_runs(batch);
  backend_.use_threads(step_threads_.of(static_cast<uint32_t>(batch.tokens.size())));
  const RowRun all_rows{.first = 0, .count = static_cast<uint32_t>(batch.tokens.size())};
  backend_.embed({.tokens = batch.tokens,
                  .table = &weights_.embedding,
                  .out = row_range(buffers_.residual, 0, all_rows.count)});
  for (uint16_t layer = 0; layer < config_.layer_count; ++layer) {
    append(batch, kv, layer);
    gate.after_append(layer);
    if (!gate.before_attention(layer)) return std::nullopt;
    if (layer + 1 < config_.layer_count || last_layer == LastLayer::kAllRows) {
      attend(batch, kv, layer, batch.spans);
      finish_layer(layer, all_rows);
    } else if (!logit_runs_.empty()) {
      attend(batch, kv, layer, logit_spans_);
      for (const RowRun& run : logit_runs_) finish_layer(layer, run);
    }
  }
  return logits_from(0);
}

void Decoder::append(const TokenBatch& batch, const SlotArena& kv, uint16_t layer) {
  const LayerWeights& weights = weights_.layers[layer];
  const auto rows = static_cast<uint32_t>(batch.tokens.size());
  const TensorView normed = row_range(buffers_.normed, 0, rows);
  const TensorView qkv = row_range(buffers_.qkv, 0, rows);
  backend_.rms_norm({.x = row_range(buffers_.residual, 0, rows),
                     .weight = weights.attention_norm,
                     .epsilon = config_.rms_epsilon,
                     .out = normed});
  backend_.gemm({.a = normed, .weight = &weights.qkv, .epilogue = Epilogue::kNone, .out = qkv});
  backend_.rope_append({.qkv = qkv,
                        .block_table = batch.block_table,
                        .kv = kv,
                        .layer = layer,
                        .spans = batch.spans,
                        .heads = config_.heads,
                        .rope_table = buffers_.rope_table,
                        .q_out = row_range(buffers_.q, 0, rows),
                        .bias = weights.qkv_bias,
                        .q_norm = weights.q_norm,
                        .k_norm = weights.k_norm,
                        .norm_epsilon = config_.rms_epsilon});
}

void Decoder::attend(const TokenBatch& batch, const SlotArena& kv, uint16_t layer, std::span<const TokenSpan> spans) {
  const auto rows = static_cast<uint32_t>(batch.tokens.size());
  backend_.attention({.q = row_range(buffers_.q, 0, rows),
                      .block_table = batch.block_table,
                      .kv = kv,
                      .layer = layer,
                      .spans = spans,
                      .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
                      .out = row_range(buffers_.attended, 0, rows)});
}

// All of a layer that follows attention, for these rows.
void Decoder::finish_layer(uint16_t layer, const RowRun& run) {
  const LayerWeights& weights = weights_.layers[layer];
  const TensorView residual = row_range(buffers_.residual, run.first, run.count);
  const TensorView normed = row_range(buffers_.normed, run.first, run.count);
  const TensorView mlp = row_range(buffers_.mlp, run.first, run.count);
  TensorView attended = row_range(buffers_.attended, run.first, run.count);
  attended.shape = {run.count, config_.attention_features(), 1};  // heads side by side
  backend_.gemm({.a = attended, .weight = &weights.attention_out, .epilogue = Epilogue::kAddResidual, .out = residual});
  backend_.rms_norm({.x = residual, .weight = weights.mlp_norm, .epsilon = config_.rms_epsilon, .out = normed});
  backend_.gemm({.a = normed, .weight = &weights.gate_up, .epilogue = Epilogue::kSwiGlu, .out = mlp});
  backend_.gemm({.a = mlp, .weight = &weights.down, .epilogue = Epilogue::kAddResidual, .out = residual});
}

// The final norm writes the runs side by side, so that one product over the largest matrix serves all of them.
TensorView Decoder::logits_from(uint32_t first) {
  uint32_t passed = 0, rows = 0;
  for (const RowRun& run : logit_runs_) {
    const uint32_t skipped = std::min(first - std::min(first, passed), run.count);
    const uint32_t taken = std::min(run.count - skipped, limits_.logit_rows_max - rows);
    passed += run.count;
    if (taken == 0) continue;
    backend_.rms_norm({.x = row_range(buffers_.residual, run.first + skipped, taken),
                       .weight = weights_.final_norm,
                       .epsilon = config_.rms_epsilon,
                       .out = row_range(buffers_.final_normed, rows, taken)});
    rows += taken;
  }
  const TensorView logits = row_range(buffers_.logits, 0, rows);
  if (rows > 0)
    backend_.gemm({.a = row_range(buffers_.final_normed, 0, rows),
                   .weight = &weights_.classifier,
                   .epilogue = Epilogue::kNone,
                   .out = logits});
  return logits;
}

}  // namespace spillway
