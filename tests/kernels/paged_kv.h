#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>
#include <vector>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/kv_tile.h"
#include "tests/kernels/backend_cases.h"
#include "tests/kernels/emulated_levels.h"

namespace spillway {

// Cases of operations on KV blocks: every test runs once per ISA level and dtype.
class KvTest : public testing::TestWithParam<std::tuple<std::string, KvDtype>> {
 protected:
  static KvDtype dtype() { return std::get<KvDtype>(GetParam()); }
  static std::unique_ptr<Backend> make(uint32_t threads = 1) {
    const std::string& isa = std::get<std::string>(GetParam());
    for (const cpu::IsaLevel& level : cpu::emulated_levels())
      if (level.name == isa) return std::make_unique<cpu::CpuBackend>(level, Precision{.kv = dtype()}, threads);
    return make_backend({.isa = isa, .threads = threads, .precision = {.kv = dtype()}});
  }
};

#define SPILLWAY_FOR_EACH_ISA_AND_KV_DTYPE(suite) \
  SPILLWAY_FOR_EACH_KV_DTYPE(IsaAndDtype, suite, ::spillway::available_isa_levels())
#define SPILLWAY_FOR_EACH_KV_DTYPE(name, suite, levels)                                                          \
  INSTANTIATE_TEST_SUITE_P(                                                                                      \
      name, suite, testing::Combine(testing::ValuesIn(levels), testing::Values(KvDtype::kBf16, KvDtype::kInt8)), \
      [](const auto& one) {                                                                                      \
        return std::get<0>(one.param) + "_" + std::string(kv_dtype_name(std::get<1>(one.param)));                \
      })

// Paged KV of a few sequences, filled through the tile index rather than by rope_append, with every unwritten value or
// scale NaN.
class PagedKv {
 public:
  // `slots[s]` are sequence s's slots in order; all sequences have as many.
  PagedKv(KvLayout layout, std::vector<std::vector<uint32_t>> slots) : layout_(layout) {
    blocks_max_ = static_cast<uint32_t>(slots[0].size());
    for (const auto& row : slots) table_.insert(table_.end(), row.begin(), row.end());
    slot_count_ = *std::max_element(table_.begin(), table_.end()) + 1;
    memory_.assign(slot_count_ * layout.block_bytes() / 2, kNan);
  }

  SlotArena arena() { return {reinterpret_cast<std::byte*>(memory_.data()), 0, layout_, slot_count_}; }
  TensorView table() {
    return {reinterpret_cast<std::byte*>(table_.data()),
            DataType::kU32,
            {static_cast<uint32_t>(table_.size()) / blocks_max_, blocks_max_, 1}};
  }

  enum class Which : uint8_t { kK, kV };
  // As stored: the bits of a bf16, or a code.
  int stored(Which which, uint32_t sequence, uint32_t token, uint16_t layer, uint32_t head, uint32_t dim) {
    const std::byte* at = place(which, sequence, token, layer, head, dim);
    return layout_.dtype == KvDtype::kInt8 ? *reinterpret_cast<const int8_t*>(at)
                                           : *reinterpret_cast<const uint16_t*>(at);
  }
  float& scale(Which which, uint32_t sequence, uint32_t token, uint16_t layer, uint32_t head) {
    std::byte* const scales =
        part(sequence, token, layer) + 2 * layout_.k_bytes() + (which == Which::kV ? layout_.k_scale_bytes() : 0);
    return reinterpret_cast<float*>(scales)[tile().scale_index(head, token % layout_.block_tokens)];
  }
  // As attention reads it.
  double k(uint32_t sequence, uint32_t token, uint16_t layer, uint32_t head, uint32_t dim) {
    return value(Which::kK, sequence, token, layer, head, dim);
  }
  double v(uint32_t sequence, uint32_t token, uint16_t layer, uint32_t head, uint32_t dim) {
    return value(Which::kV, sequence, token, layer, head, dim);
  }
  // One head's row of a token, rounded as rope_append.h says.
  void set(Which which, uint32_t sequence, uint32_t token, uint16_t layer, uint32_t head,
           const std::vector<float>& row) {
    float highest = 0;
    for (const float x : row)
      highest = std::isfinite(x) ? std::max(highest, std::abs(x)) : std::numeric_limits<float>::quiet_NaN();
    const float step = highest / 127.0f;
    for (uint32_t dim = 0; dim < layout_.head_dim; ++dim) {
      std::byte* const at = place(which, sequence, token, layer, head, dim);
      if (layout_.dtype == KvDtype::kInt8) {
        *reinterpret_cast<int8_t*>(at) = step > 0 ? static_cast<int8_t>(std::nearbyint(row[dim] / step)) : int8_t{0};
      } else {
        *reinterpret_cast<uint16_t*>(at) = bf16_from_f32(row[dim]);
      }
    }
    if (layout_.dtype == KvDtype::kInt8) scale(which, sequence, token, layer, head) = step;
  }
  std::vector<float> row(Which which, uint32_t sequence, uint32_t token, uint16_t layer, uint32_t head) {
    std::vector<float> row;
    for (uint32_t dim = 0; dim < layout_.head_dim; ++dim)
      row.push_back(static_cast<float>(value(which, sequence, token, layer, head, dim)));
    return row;
  }
  // Writes tokens [first, end) of one layer; a token's values depend on nothing but (seed, token).
  void fill(uint32_t sequence, uint32_t first, uint32_t end, uint16_t layer, uint32_t seed) {
    std::vector<float> k_row(layout_.head_dim), v_row(layout_.head_dim);
    for (uint32_t token = first; token < end; ++token) {
      Values values(seed * 100003 + token);
      for (uint32_t head = 0; head < layout_.kv_heads; ++head) {
        for (uint32_t dim = 0; dim < layout_.head_dim; ++dim) {
          k_row[dim] = 2 * values.next();
          v_row[dim] = values.next();
        }
        set(Which::kK, sequence, token, layer, head, k_row);
        set(Which::kV, sequence, token, layer, head, v_row);
      }
    }
  }

  static constexpr uint16_t kNan = 0x7fc1;  // two of them are an f32 NaN

 private:
  cpu::KvTile tile() const { return {layout_.block_tokens, layout_.head_dim}; }
  std::byte* part(uint32_t sequence, uint32_t token, uint16_t layer) {
    const uint32_t slot = table_[sequence * blocks_max_ + token / layout_.block_tokens];
    return arena().parts(SlotId{slot}, {layer, 1}).data();
  }
  std::byte* place(Which which, uint32_t sequence, uint32_t token, uint16_t layer, uint32_t head, uint32_t dim) {
    const uint32_t in_block = token % layout_.block_tokens;
    const size_t index = which == Which::kK ? tile().k_index(head, in_block, dim) : tile().v_index(head, in_block, dim);
    return part(sequence, token, layer) + (which == Which::kV ? layout_.k_bytes() : 0) + index * layout_.value_bytes();
  }
  double value(Which which, uint32_t sequence, uint32_t token, uint16_t layer, uint32_t head, uint32_t dim) {
    const int bits = stored(which, sequence, token, layer, head, dim);
    return layout_.dtype == KvDtype::kInt8 ? bits * double{scale(which, sequence, token, layer, head)}
                                           : f32_from_bf16(static_cast<uint16_t>(bits));
  }

  KvLayout layout_;
  uint32_t blocks_max_ = 0, slot_count_ = 0;
  std::vector<uint32_t> table_;
  std::vector<uint16_t> memory_;
};

// 0, 1, 2, ... from `first`.
inline std::vector<uint32_t> slots_from(uint32_t first, uint32_t count) {
  std::vector<uint32_t> slots(count);
  std::iota(slots.begin(), slots.end(), first);
  return slots;
}

}  // namespace spillway
