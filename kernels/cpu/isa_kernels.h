#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/panel_format.h"

// The inner bodies that exist once per ISA level; everything else is shared. Plain C++ only: files compiled for one
// ISA include this.
namespace spillway::cpu {

inline constexpr uint32_t kFoldTokensMax = 64;   // tokens that one attention fold covers at most
inline constexpr uint32_t kTileVectorsMax = 64;  // query vectors of one attention tile
inline constexpr uint32_t kLanes = 16;           // partial sums of l per query vector

inline constexpr uint32_t kPanelRowsMax = 96;  // of `a` in one GemmPanel: its part of `a` stays in L2 beside the panel

// 32 neighbours of a row as int8: value = scale * code, code = round(value * (127 / greatest)) to nearest even, scale =
// greatest / 127, in f32, of the greatest magnitude among them. All 0 where that is below 2^-100. Where one is infinite
// or NaN the scale is NaN and codes are 0: such a block spoils its row's products, as it does in bf16.
struct ActivationBlock {
  static constexpr uint32_t kValues = 32;
  int8_t codes[kValues] = {};
  float scale = 0;
  float sum = 0;            // of the codes: an integer
  float half_sums[2] = {};  // of the first and of the last 16
};
// Of the bits of the greatest magnitude, a bf16; what a block of another is.
constexpr bool is_quantisable(uint32_t greatest) { return greatest >= 0x0d80 && greatest < 0x7f80; }
constexpr ActivationBlock unquantisable_block(uint32_t greatest) {
  return {.scale = greatest < 0x7f80 ? 0 : __builtin_nanf("")};
}

// 32 neighbours of a row for products with codes that bf16 holds exactly: of each 8 the pairs (0, 2), (4, 6), (1, 3),
// (5, 7), the order in which a word's codes come apart.
struct PairBlock {
  static constexpr uint32_t kValues = 32;
  uint16_t pairs[kValues] = {};
  float half_sums[2] = {};  // of the first and of the last 16, each folded in halves (16 sums, 8, 4, 2, 1), in f32
  float sum = 0;            // of both
};

enum class PanelEpilogue : uint8_t { kStore, kAdd, kSwiGlu };

// out[0..rows) x one panel: product[m, c] = sum_k a[m, k] * panel[k, c], every element in one order,
// whatever rows: docs/numerics.md.
struct GemmPanel {
  const uint16_t* a = nullptr;   // bf16 [rows, depth], rows a_stride elements apart
  const void* blocks = nullptr;  // where products with codes take blocks in place of `a`: those, [rows][depth / 32]
  size_t a_stride = 0;
  uint32_t rows = 0, depth = 0;  // rows: 1..kPanelRowsMax
  const void* panel = nullptr;   // of `format`, zero where padded
  PanelFormat format = PanelFormat::kBf16;
  uint32_t columns = 0;  // of `out` that exist: 1..64, for kSwiGlu 1..32
  PanelEpilogue epilogue = PanelEpilogue::kStore;
  void* out = nullptr;  // f32, for kSwiGlu bf16; rows out_stride elements apart
  size_t out_stride = 0;
  void* scratch = nullptr;  // kPanelScratchBytes, 64-aligned: this thread's, whatever is in it
};
// Sums and the unpacked weights of a chunk of depth; each level asserts that its own fit.
inline constexpr size_t kPanelScratchBytes = size_t{80} << 10;

// One fold of an online softmax: `tokens` keys that lie in one block, for query vectors in ascending position. Vector v
// sees the first valid[v] keys (1..tokens); keys and values beyond are not used, whatever bits lie there.
//   s = scale_log2 * (q . k);  m' = max(m, max s);  p = 2^(s - m');  l = l * 2^(m - m') + sum p;  o = o * 2^(m - m') +
//   p v
struct AttentionFold {
  const uint16_t* q = nullptr;  // bf16 [vectors][head_dim]
  uint32_t vectors = 0, head_dim = 0, tokens = 0;
  const uint16_t* k = nullptr;       // this head's and these tokens' first K tile
  const uint16_t* v = nullptr;       // ... first V pair
  const uint16_t* next_k = nullptr;  // what is read after this fold, most likely: to be fetched meanwhile
  const uint16_t* next_v = nullptr;
  const float* k_scales = nullptr;   // [tokens], or null for both: s = scale_log2 * (q . k) * k_scale, and
  const float* v_scales = nullptr;   // o = o * 2^(m - m') + (p * v_scale) v
  const uint8_t* valid = nullptr;    // [vectors]
  float scale_log2 = 0;              // scale * log2(e)
  float* m = nullptr;                // [vectors]
  float* l = nullptr;                // [vectors][16]: partial sums, token mod 16
  float* o = nullptr;                // [vectors][head_dim]
};

// The same products of int8 activations and a narrow panel, one panel block after the other: the sum of codes' products
// is exact, and with x of the block, d and m of the column, in f32,
//   sum = fma(x.scale, fma(d, dot + kDotOffset, fma(m, x.sum, -kDotOffset * d)), sum)
// (of blocks of 16 values: x.half_sums). dot + kDotOffset is exact as well: the float whose bits are those of
// kDotOffset plus dot, so that a sum of integers that starts there needs no conversion. It cancels but for one rounding
// of half an f32 step of the inner sum, where a step of one code is worth up to 255 |d|. REQUIRES depth a multiple of
// 32.
inline constexpr float kDotOffset = 12582912;  // 1.5 * 2^23: |dot| <= 32 * 255 * 127 stays where floats are integers
inline constexpr int32_t kDotOffsetBits = 0x4b400000;

// `count` blocks (ActivationBlock) of values that lie one after the other.
void quantise_scalar(const uint16_t* values, size_t count, void* blocks);
void quantise_avx2(const uint16_t* values, size_t count, void* blocks);
void quantise_avx512(const uint16_t* values, size_t count, void* blocks);
void gemm_panel_int8_scalar(const GemmPanel& args);
void gemm_panel_int8_avx2(const GemmPanel& args);
void gemm_panel_int8_avx512(const GemmPanel& args);

// The products of bf16 activations (PairBlock) and a panel of codes, one panel block after the other: dot is a chain of
// vdpbf16ps from zero over the pairs, then, with x of the block, d and m of the column, in f32,
//   sum = fma(d, dot, fma(m, x.sum, sum))
// (of blocks of 16 values: x.half_sums). REQUIRES depth a multiple of 32.
void pair_up_avx512(const uint16_t* values, size_t count, void* blocks);  // as quantise_*
void gemm_panel_codes_avx512(const GemmPanel& args);

// values[i] = codes[i] as bf16, which is exact. Meanwhile as many bytes at `ahead` are fetched.
struct CodesToWiden {
  const int8_t* codes = nullptr;
  uint32_t count = 0;  // a multiple of 32
  const int8_t* ahead = nullptr;
  uint16_t* values = nullptr;
};

void gemm_panel_scalar(const GemmPanel& args);
void gemm_panel_avx2(const GemmPanel& args);
void gemm_panel_avx512(const GemmPanel& args);  // of kBf16 only
void attention_fold_scalar(const AttentionFold& args);
void attention_fold_avx2(const AttentionFold& args);
void attention_fold_avx512(const AttentionFold& args);
void widen_codes_scalar(const CodesToWiden& args);
void widen_codes_avx2(const CodesToWiden& args);
void widen_codes_avx512(const CodesToWiden& args);

}  // namespace spillway::cpu
