#pragma once

#include <cstddef>
#include <cstdint>

// The inner bodies that exist once per ISA level; everything else is shared. Plain C++ only: files compiled for one
// ISA include this.
namespace spillway::cpu {

inline constexpr uint32_t kPanelColumns = 64;    // output features per packed panel
inline constexpr uint32_t kFoldTokensMax = 64;   // tokens that one attention fold covers at most
inline constexpr uint32_t kTileVectorsMax = 64;  // query vectors of one attention tile
inline constexpr uint32_t kLanes = 16;           // partial sums of l per query vector

inline constexpr uint32_t kPanelRowsMax = 96;  // of `a` in one GemmPanel: its part of `a` stays in L2 beside the panel

// How a panel holds its weights. kBf16: pairs, [(depth + 1) / 2][64][2]. The others, narrow: codes of so many bits, and
// d and m of this type for every 32 (kCodes8F32By16: 16) values of a column; weight = fma(code, d, m).
enum class PanelFormat : uint8_t { kBf16, kCodes4F16, kCodes8F16, kCodes4F32, kCodes8F32, kCodes8F32By16 };

// A panel is one run of blocks over ascending k, each of u32 words[values * value_bits / 32][64], then of a narrow
// format d[64], then m[64]. A word is one column's next values: pairs of bf16, lower k in the lower half; codes of 8
// bits, byte i that of the i-th k; or of 4 bits, byte i the i-th k in its low half and the one 4 further in its high.
struct PanelLayout {
  uint32_t value_bits = 16, scale_bytes = 0, block_values = 2;
  constexpr uint32_t word_values() const { return 32 / value_bits; }
  constexpr uint32_t block_words() const { return block_values / word_values(); }
  constexpr size_t block_bytes() const { return kPanelColumns * (4 * size_t{block_words()} + 2 * scale_bytes); }
  constexpr size_t panel_bytes(uint32_t depth) const {
    return (size_t{depth} + block_values - 1) / block_values * block_bytes();
  }
};
constexpr PanelLayout layout_of(PanelFormat format) {
  switch (format) {
    case PanelFormat::kBf16: return {16, 0, 2};
    case PanelFormat::kCodes4F16: return {4, 2, 32};
    case PanelFormat::kCodes8F16: return {8, 2, 32};
    case PanelFormat::kCodes4F32: return {4, 4, 32};
    case PanelFormat::kCodes8F32: return {8, 4, 32};
    case PanelFormat::kCodes8F32By16: return {8, 4, 16};
  }
  return {};
}

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

enum class PanelEpilogue : uint8_t { kStore, kAdd, kSwiGlu };

// out[0..rows) x one panel: product[m, c] = sum_k a[m, k] * panel[k, c], every element by one chain over ascending k.
struct GemmPanel {
  const uint16_t* a = nullptr;              // bf16 [rows, depth], rows a_stride elements apart
  const ActivationBlock* blocks = nullptr;  // of gemm_panel_int8, in place of `a`: [rows][depth / 32]
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
inline constexpr size_t kPanelScratchBytes = size_t{112} << 10;

// One fold of an online softmax: `tokens` keys that lie in one block, for query vectors in ascending position. Vector v
// sees the first valid[v] keys (1..tokens); keys and values beyond are not used, whatever bits lie there.
//   s = scale_log2 * (q . k);  m' = max(m, max s);  p = 2^(s - m');  l = l * 2^(m - m') + sum p;  o = o * 2^(m - m') +
//   p v
struct AttentionFold {
  const uint16_t* q = nullptr;  // bf16 [vectors][head_dim]
  uint32_t vectors = 0, head_dim = 0, tokens = 0;
  const uint16_t* k = nullptr;       // this head's and these tokens' first K tile
  const uint16_t* v = nullptr;       // ... first V pair
  const uint16_t* next_k = nullptr;  // of the fold after this one, to be fetched meanwhile; `k` again after the last
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

// `count` blocks of values that lie one after the other.
void quantise_scalar(const uint16_t* values, size_t count, ActivationBlock* out);
void quantise_avx2(const uint16_t* values, size_t count, ActivationBlock* out);
void quantise_avx512(const uint16_t* values, size_t count, ActivationBlock* out);
void gemm_panel_int8_scalar(const GemmPanel& args);
void gemm_panel_int8_avx2(const GemmPanel& args);
void gemm_panel_int8_avx512(const GemmPanel& args);

// values[i] = codes[i] as bf16, which is exact. Meanwhile as many bytes at `ahead` are fetched.
struct CodesToWiden {
  const int8_t* codes = nullptr;
  uint32_t count = 0;  // a multiple of 32
  const int8_t* ahead = nullptr;
  uint16_t* values = nullptr;
};

void gemm_panel_scalar(const GemmPanel& args);
void gemm_panel_avx2(const GemmPanel& args);
void gemm_panel_avx512(const GemmPanel& args);
void attention_fold_scalar(const AttentionFold& args);
void attention_fold_avx2(const AttentionFold& args);
void attention_fold_avx512(const AttentionFold& args);
void widen_codes_scalar(const CodesToWiden& args);
void widen_codes_avx2(const CodesToWiden& args);
void widen_codes_avx512(const CodesToWiden& args);

}  // namespace spillway::cpu
