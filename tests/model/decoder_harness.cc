#include "tests/model/decoder_harness.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "common/check.h"
#include "kernels/make_backend.h"
#include "tests/support/tiny_weights.h"

namespace spillway {
namespace {

template <class T>
T checked(Result<T> result) {
  if (!result) throw SetupError(result.error().detail);
  return std::move(*result);
}

ModelConfig changed_config(const GgufFile& file, const ModelChange& change) {
  ModelConfig config = checked(read_model_config(file));
  if (change.config) change.config(config);
  return config;
}

Weights changed_weights(const GgufFile& file, const ModelConfig& config, Backend& backend, const ModelChange& change) {
  Weights weights = checked(load_weights(file, config, backend));
  if (change.layer) std::ranges::for_each(weights.layers, change.layer);
  return weights;
}

SlotArena allocate_slots(Backend& backend, const KvLayout& layout, uint32_t slot_count) {
  const std::span<std::byte> memory = backend.allocate(size_t{slot_count} * layout.block_bytes());
  std::memset(memory.data(), 0xff, memory.size());  // NaN as bf16 and as a scale: a row read before it is written shows
  return {.base = memory.data(), .header_bytes = 0, .layout = layout, .slot_count = slot_count};
}

}  // namespace

DecoderHarness::DecoderHarness(const GgufFile& file, const Limits& limits, const ModelChange& change)
    : backend_(make_backend({.isa = limits.isa, .threads = limits.threads, .precision = limits.precision})),
      config_(changed_config(file, change)),
      weights_(changed_weights(file, config_, *backend_, change)),
      kv_(allocate_slots(*backend_, config_.kv_layout(limits.precision.kv), limits.slot_count)),
      decoder_(*backend_, config_, weights_, limits.rows_max, limits.logit_rows_max, limits.positions_max) {}

std::vector<std::vector<float>> DecoderHarness::forward(std::span<const Part> parts, LayerGate& gate,
                                                        Decoder::LastLayer last_layer) {
  std::vector<TokenId> tokens;
  std::vector<TokenSpan> spans;
  std::vector<uint32_t> logit_rows;
  size_t blocks_max = 0;
  for (const Part& part : parts) blocks_max = std::max(blocks_max, part.slots.size());
  std::vector<uint32_t> table(parts.size() * blocks_max);
  for (size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    const auto row_first = static_cast<uint32_t>(tokens.size()), rows = static_cast<uint32_t>(part.tokens.size());
    spans.push_back({.row_first = row_first,
                     .row_count = rows,
                     .position_first = part.position_first,
                     .block_table_row = static_cast<uint32_t>(i)});
    for (uint32_t row = part.all_logits ? 0 : rows - 1; row < rows && !part.no_logits; ++row)
      logit_rows.push_back(row_first + row);
    tokens.insert(tokens.end(), part.tokens.begin(), part.tokens.end());
    std::copy(part.slots.begin(), part.slots.end(), table.begin() + static_cast<std::ptrdiff_t>(i * blocks_max));
  }
  const TokenBatch batch{
      .tokens = tokens,
      .spans = spans,
      .block_table = {.data = reinterpret_cast<std::byte*>(table.data()),
                      .type = DataType::kU32,
                      .shape = {static_cast<uint32_t>(parts.size()), static_cast<uint32_t>(blocks_max), 1}},
      .logit_rows = logit_rows};
  const std::optional<TensorView> logits = decoder_.forward(batch, kv_, gate, last_layer);
  std::vector<std::vector<float>> rows;
  if (!logits) return rows;
  CHECK(logits->shape[0] == logit_rows.size() && logits->shape[1] == config_.vocab);
  for (size_t row = 0; row < logit_rows.size(); ++row) {
    const float* values = logits->as<float>() + row * config_.vocab;
    rows.emplace_back(values, values + config_.vocab);
  }
  return rows;
}

std::vector<float> DecoderHarness::last_logits(std::span<const TokenId> tokens, uint32_t chunk_tokens,
                                               const std::vector<uint32_t>& slots) {
  ResidentGate gate;
  std::vector<std::vector<float>> rows;
  for (uint32_t at = 0; at < tokens.size(); at += chunk_tokens) {
    const auto chunk = tokens.subspan(at, std::min<size_t>(chunk_tokens, tokens.size() - at));
    const Part part{.tokens = {chunk.begin(), chunk.end()},
                    .position_first = at,
                    .slots = slots,
                    .no_logits = at + chunk.size() < tokens.size()};
    rows = forward({&part, 1}, gate);
  }
  return rows.front();
}

std::vector<uint32_t> slots_from(uint32_t first, uint32_t count) {
  std::vector<uint32_t> slots(count);
  std::iota(slots.begin(), slots.end(), first);
  return slots;
}

std::vector<TokenId> draw_tokens(uint64_t seed, uint32_t count, uint32_t vocab) {
  TinyRandom random(seed);
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random.next() % vocab);
  return tokens;
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

}  // namespace spillway
