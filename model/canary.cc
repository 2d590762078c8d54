#include "model/canary.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <vector>

#include "common/check.h"
#include "kernels/rope_table.h"
#include "model/layer_gate.h"

namespace spillway {
namespace {

constexpr uint32_t kRopePositionsMax = 8192;
constexpr uint64_t kStride = 7919;  // a prime: spreads the prompt over the vocabulary

uint64_t rope_digest(const ModelConfig& config, uint64_t seed) {
  std::vector<float> table(size_t{std::min(config.context_max, kRopePositionsMax)} * config.head_dim);
  fill_rope_table(config.rope, config.head_dim, table);
  return XXH3_64bits_withSeed(table.data(), table.size() * sizeof(float), seed);
}

}  // namespace

uint64_t compute_canary(Backend& backend, Decoder& decoder, const SlotArena& kv) {
  const ModelConfig& config = decoder.config();
  const uint32_t block_count = kv.layout.blocks_for(kCanaryTokens);
  CHECK(block_count <= kv.slot_count && kCanaryTokens <= decoder.positions_max());
  const TensorView table{.data = backend.allocate(block_count * sizeof(uint32_t)).data(),
                         .type = DataType::kU32,
                         .shape = {1, block_count, 1}};
  for (uint32_t block = 0; block < block_count; ++block) table.as<uint32_t>()[block] = block;
  std::array<TokenId, kCanaryTokens> prompt;
  for (uint32_t i = 0; i < kCanaryTokens; ++i) prompt[i] = static_cast<TokenId>((i + 1) * kStride % config.vocab);

  ResidentGate gate;
  SampleRow row;
  row.digest = true;
  for (uint32_t at = 0, count = 0; at < kCanaryTokens; at += count) {
    count = std::min(kCanaryTokens - at, decoder.rows_max());
    const TokenSpan span{.row_first = 0, .row_count = count, .position_first = at, .block_table_row = 0};
    const uint32_t last_row = count - 1;
    const auto logits = decoder.forward({.tokens = {prompt.data() + at, count},
                                         .spans = {&span, 1},
                                         .block_table = table,
                                         .logit_rows = {&last_row, 1}},
                                        kv, gate);
    CHECK(logits);  // the gate never gives up
    backend.sample({*logits, {&row, 1}});
  }
  return rope_digest(config, row.logits_digest);
}

}  // namespace spillway
