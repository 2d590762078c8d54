#include "cli/decode_ways.h"

#include <cstring>
#include <numeric>

#include "common/check.h"
#include "engine/layer_gates.h"
#include "kernels/sample.h"

namespace spillway {
namespace {

// One forward pass over rows of one sequence that owns slots 0, 1, ... of the model's KV memory.
class OneSequence {
 public:
  OneSequence(LocalModel& model, uint32_t positions) : model_(model), blocks_(model.kv().layout.blocks_for(positions)) {
    CHECK(blocks_ <= model.kv().slot_count && positions <= model.limits().model_len);
    table_.resize(blocks_);
    std::iota(table_.begin(), table_.end(), 0u);
  }

  void poison() {
    constexpr int kNanByte = 0xff;  // bf16 0xffff is a NaN, and so is an f32 scale of 0xffffffff
    for (uint32_t slot = 0; slot < blocks_; ++slot) {
      const std::span<std::byte> bytes = model_.kv().parts(SlotId{slot}, {0, model_.config().layer_count});
      std::memset(bytes.data(), kNanByte, bytes.size());
    }
  }

  // `way` says which rows reach the classifier. The last row's logits stay valid until the next call.
  DecodeStep step(DecodeWay way, std::span<const TokenId> tokens, uint32_t position_first) {
    const auto rows = static_cast<uint32_t>(tokens.size());
    const TokenSpan span{.row_first = 0, .row_count = rows, .position_first = position_first, .block_table_row = 0};
    logit_rows_.assign(1, rows - 1);
    if (way == DecodeWay::kNoCache) {
      logit_rows_.resize(rows);
      std::iota(logit_rows_.begin(), logit_rows_.end(), 0u);
    }
    samples_.assign(logit_rows_.size(), SampleRow{});
    samples_.back().digest = true;
    const TokenBatch batch{.tokens = tokens,
                           .spans = {&span, 1},
                           .block_table = {.data = reinterpret_cast<std::byte*>(table_.data()),
                                           .type = DataType::kU32,
                                           .shape = {1, blocks_, 1}},
                           .logit_rows = logit_rows_};
    ResidentGate gate;
    Backend& backend = model_.backend();
    backend.reset_counters();
    const TimePoint start = steady_now();
    const std::optional<TensorView> logits = model_.decoder().forward(
        batch, model_.kv(), gate,
        way == DecodeWay::kNoCache ? Decoder::LastLayer::kAllRows : Decoder::LastLayer::kLogitRows);
    CHECK(logits);
    backend.sample({.logits = *logits, .rows = samples_});
    CHECK(backend.reached(backend.record()));
    last_logits_ = row_range(*logits, logits->shape[0] - 1, 1);
    const SampleRow& last = samples_.back();
    return {.position_first = position_first,
            .rows = rows,
            .token = last.token,
            .logits_digest = last.logits_digest,
            .finite = last.finite,
            .counters = backend.counters(),
            .elapsed = steady_now() - start};
  }

  std::span<const float> last_logits() const { return {last_logits_.as<float>(), last_logits_.shape[1]}; }

 private:
  LocalModel& model_;
  const uint32_t blocks_;
  std::vector<uint32_t> table_;
  std::vector<uint32_t> logit_rows_;
  std::vector<SampleRow> samples_;
  TensorView last_logits_;
};

}  // namespace

std::string_view way_name(DecodeWay way) {
  switch (way) {
    case DecodeWay::kNoCache: return "no cache";
    case DecodeWay::kPruned: return "pruned";
    case DecodeWay::kKvCache: return "KV cache";
  }
  CHECK(false);
}

DecodeRun decode_by(LocalModel& model, DecodeWay way, std::span<const TokenId> prompt, uint32_t tokens) {
  CHECK(!prompt.empty() && tokens > 0);
  std::vector<TokenId> sequence(prompt.begin(), prompt.end());
  OneSequence one(model, static_cast<uint32_t>(prompt.size()) + tokens - 1);
  one.poison();
  DecodeRun run;
  uint32_t computed = 0;  // rows whose K and V are kept
  for (uint32_t step = 0; step < tokens; ++step) {
    if (way != DecodeWay::kKvCache) {
      one.poison();
      computed = 0;
    }
    run.steps.push_back(one.step(way, std::span(sequence).subspan(computed), computed));
    computed = static_cast<uint32_t>(sequence.size());
    sequence.push_back(run.steps.back().token);
  }
  run.final_logits.assign(one.last_logits().begin(), one.last_logits().end());
  return run;
}

OpCounters expected_counters(const LocalModel& model, DecodeWay way, uint32_t position_first, uint32_t rows) {
  const ModelConfig& config = model.config();
  const uint64_t layers = config.layer_count, n = rows, end = uint64_t{position_first} + rows;
  const bool all_rows = way == DecodeWay::kNoCache;
  const uint64_t finished = all_rows ? layers * n : (layers - 1) * n + 1;  // rows that go through a whole layer
  const uint64_t classified = all_rows ? n : 1;
  // Positions that the rows of one layer attend to, summed: row at position p sees p + 1.
  const uint64_t all_pairs = end * (end + 1) / 2 - uint64_t{position_first} * (position_first + uint64_t{1}) / 2;
  const uint64_t pairs = all_rows ? layers * all_pairs : (layers - 1) * all_pairs + end;
  const uint64_t hidden = config.hidden, attention = config.attention_features();
  OpCounters expected;
  expected.q_rows = expected.kv_rows = layers * n;
  expected.mlp_rows = finished;
  expected.logit_rows = classified;
  expected.gemm_flops =
      2 * (layers * n * config.qkv_features() * hidden +
           finished * (hidden * attention + 3 * hidden * config.feed_forward) + classified * config.vocab * hidden);
  expected.attention_flops = 4 * uint64_t{config.head_dim} * config.heads * pairs;
  expected.weight_bytes = model.weights().packed_bytes();
  expected.kv_bytes = layers * end * model.kv().layout.token_bytes();
  return expected;
}

}  // namespace spillway
