#pragma once

#include <cstddef>
#include <cstdint>

// The two inner bodies that exist once per ISA level; everything else is shared. Plain C++ only: files compiled for one
// ISA include this.
namespace spillway::cpu {

inline constexpr uint32_t kPanelColumns = 64;    // output features per packed panel
inline constexpr uint32_t kFoldTokensMax = 64;   // tokens that one attention fold covers at most
inline constexpr uint32_t kTileVectorsMax = 64;  // query vectors of one attention tile
inline constexpr uint32_t kLanes = 16;  // partial sums of l per query vector

enum class PanelEpilogue : uint8_t { kStore, kAdd, kSwiGlu };

// out[0..rows) x one panel: product[m, c] = sum_k a[m, k] * panel[k, c], every element by one chain over ascending k.
struct GemmPanel {
  const uint16_t* a = nullptr;  // bf16 [rows, depth], rows a_stride elements apart
  size_t a_stride = 0;
  uint32_t rows = 0, depth = 0;
  const uint16_t* panel = nullptr;  // bf16 [(depth + 1) / 2][64][2], zero where padded
  uint32_t columns = 0;             // of `out` that exist: 1..64, for kSwiGlu 1..32
  PanelEpilogue epilogue = PanelEpilogue::kStore;
  void* out = nullptr;  // f32, for kSwiGlu bf16; rows out_stride elements apart
  size_t out_stride = 0;
};

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
  const uint8_t* valid = nullptr;    // [vectors]
  float scale_log2 = 0;              // scale * log2(e)
  float* m = nullptr;                // [vectors]
  float* l = nullptr;                // [vectors][16]: partial sums, token mod 16
  float* o = nullptr;                // [vectors][head_dim]
};

void gemm_panel_scalar(const GemmPanel& args);
void gemm_panel_avx512(const GemmPanel& args);
void attention_fold_scalar(const AttentionFold& args);
void attention_fold_avx512(const AttentionFold& args);

}  // namespace spillway::cpu
