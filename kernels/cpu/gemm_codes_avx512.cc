#include "kernels/cpu/gemm_avx512.h"

// Products of bf16 activations and panels of codes, which bf16 holds exactly (docs/numerics.md, "GEMM").
namespace spillway::cpu {
namespace {

constexpr uint32_t kEight = 8;           // values that come apart together, as four pairs
constexpr uint32_t kCodesRowsMost = 12;  // at once: of one vector of columns their sums and dots are registers

struct CodesScratch {
  float sums[kCodesRowsMost][kPanelColumns];
};
static_assert(sizeof(CodesScratch) <= kPanelScratchBytes);

// Byte `i` of each of 16 words, as f32.
SPILLWAY_AVX512_INLINE __m512 byte_of(__m512i words, int i) {
  const __m512i own = _mm512_set4_epi32(0x8080800c, 0x80808008, 0x80808004, static_cast<int>(0x80808000));
  return _mm512_cvtepi32_ps(_mm512_shuffle_epi8(words, _mm512_add_epi32(own, _mm512_set1_epi32(i))));
}

// Two small integers a lane: their f32 have nothing in the lower half.
SPILLWAY_AVX512_INLINE __m512bh pair_of(__m512 low, __m512 high) {
  return (__m512bh)_mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(low), 16), _mm512_castps_si512(high));
}

// Codes 8 * eight and following of a block, of 16 columns, as the four pairs of PairBlock.
template <PanelFormat Format>
SPILLWAY_AVX512_INLINE void load_pairs(const char* block, uint32_t eight, uint32_t vector, __m512bh (&pairs)[4]) {
  if constexpr (layout_of(Format).value_bits == 4) {
    const __m512i words = _mm512_loadu_si512(block + 4 * kPanelColumns * eight + 64 * vector);
    // 0..15 as bf16, twice: the instruction looks at five bits of a half word, of which the fifth is the next code's.
    const __m512i table = _mm512_set_epi32(0x41704160, 0x41504140, 0x41304120, 0x41104100, 0x40e040c0, 0x40a04080,
                                           0x40404000, 0x3f800000, 0x41704160, 0x41504140, 0x41304120, 0x41104100,
                                           0x40e040c0, 0x40a04080, 0x40404000, 0x3f800000);
    pairs[0] = (__m512bh)_mm512_permutexvar_epi16(words, table);
    pairs[1] = (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi32(words, 4), table);
    pairs[2] = (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi32(words, 8), table);
    pairs[3] = (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi32(words, 12), table);
  } else {
    const char* const line = block + 4 * kPanelColumns * 2 * eight + 64 * vector;
    const __m512i first = _mm512_loadu_si512(line), second = _mm512_loadu_si512(line + 4 * kPanelColumns);
    pairs[0] = pair_of(byte_of(first, 0), byte_of(first, 2));
    pairs[1] = pair_of(byte_of(second, 0), byte_of(second, 2));
    pairs[2] = pair_of(byte_of(first, 1), byte_of(first, 3));
    pairs[3] = pair_of(byte_of(second, 1), byte_of(second, 3));
  }
}

SPILLWAY_AVX512_INLINE __m512 add_block(const Scales& scales, __m512 dot, float activations, __m512 sum) {
  return _mm512_fmadd_ps(scales.d, dot, _mm512_fmadd_ps(scales.m, _mm512_set1_ps(activations), sum));
}

// What a block of BlockValues values meets of a row: `half` of a PairBlock, or all of it.
template <uint32_t BlockValues>
float sum_of(const PairBlock& a, uint32_t half) {
  return BlockValues == PairBlock::kValues ? a.sum : a.half_sums[half];
}

// The product of Rows rows from `row` on and Vectors vectors of columns from `vector` on, whose codes become pairs in
// registers: for many rows as well that costs less than to keep them unpacked.
template <PanelFormat Format, int Rows, int Vectors>
SPILLWAY_AVX512 void multiply_codes_rows(const GemmPanel& args, uint32_t row, uint32_t vector) {
  constexpr PanelLayout kLayout = layout_of(Format);
  const size_t stride = args.depth / PairBlock::kValues;
  const auto* const rows = static_cast<const PairBlock*>(args.blocks) + row * stride;
  __m512 sums[Rows][Vectors];
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < Vectors; ++v) sums[r][v] = _mm512_setzero_ps();
  const auto* block = static_cast<const char*>(args.panel);
  for (uint32_t k = 0; k < args.depth; k += kLayout.block_values, block += kLayout.block_bytes()) {
    const PairBlock* const a = rows + k / PairBlock::kValues;
    const uint32_t half = k % PairBlock::kValues / 16;
    __m512 dots[Rows][Vectors];
    for (int r = 0; r < Rows; ++r)
      for (int v = 0; v < Vectors; ++v) dots[r][v] = _mm512_setzero_ps();
#pragma GCC unroll 4
    for (uint32_t eight = 0; eight < kLayout.block_values / kEight; ++eight) {
      for (uint32_t v = 0; v < Vectors; ++v) {
        __m512bh pairs[4];
        load_pairs<Format>(block, eight, vector + v, pairs);
        for (uint32_t p = 0; p < 4; ++p)
          for (int r = 0; r < Rows; ++r)
            dots[r][v] = _mm512_dpbf16_ps(
                dots[r][v], pairs[p],
                broadcast_pair(a[static_cast<size_t>(r) * stride].pairs + 16 * half + kEight * eight + 2 * p));
      }
    }
    for (uint32_t v = 0; v < Vectors; ++v) {
      const Scales scales = load_scales<Format>(block + 4 * kPanelColumns * size_t{kLayout.block_words()}, vector + v);
      for (int r = 0; r < Rows; ++r) {
        sums[r][v] = add_block(scales, dots[r][v],
                               sum_of<kLayout.block_values>(a[static_cast<size_t>(r) * stride], half), sums[r][v]);
        // 16 sums, 16 dots and what they meet do not fit: it is the sums that lie in memory, used once a block.
        if constexpr (Rows * Vectors >= 16) __asm__ volatile("" : "+m"(sums[r][v]));
      }
    }
    if (row == 0 && vector == 0) fetch_ahead<Format>(block);
  }
  if constexpr (Vectors % 2 == 0) {  // as an epilogue needs them
    store_tile(args, row, static_cast<int>(vector), sums);
  } else {
    auto* const kept = static_cast<CodesScratch*>(args.scratch)->sums;
    for (int r = 0; r < Rows; ++r) _mm512_storeu_ps(kept[r] + 16 * vector, sums[r][0]);
  }
}

// The epilogue of as many rows, from the sums of their products.
SPILLWAY_AVX512 inline void store_rows(const GemmPanel& args, uint32_t row, uint32_t count,
                                       const float (*from)[kPanelColumns]) {
  for (uint32_t r = 0; r < count; ++r) {
    __m512 sums[1][kVectors];
    for (int v = 0; v < kVectors; ++v) sums[0][v] = _mm512_loadu_ps(from[r] + 16 * v);
    store_tile(args, row + r, 0, sums);
  }
}

template <PanelFormat Format, int Rows>
void multiply_codes_tile(const GemmPanel& args, uint32_t row) {
  if constexpr (Rows <= 4) {
    multiply_codes_rows<Format, Rows, kVectors>(args, row, 0);
  } else if constexpr (Rows <= 7) {
    multiply_codes_rows<Format, Rows, kVectors / 2>(args, row, 0);
    multiply_codes_rows<Format, Rows, kVectors / 2>(args, row, kVectors / 2);
  } else {
    for (uint32_t vector = 0; vector < kVectors; ++vector) multiply_codes_rows<Format, Rows, 1>(args, row, vector);
    store_rows(args, row, Rows, static_cast<CodesScratch*>(args.scratch)->sums);
  }
}

template <PanelFormat Format>
void multiply_codes(const GemmPanel& args) {
  uint32_t row = 0;
  for (; row + kCodesRowsMost <= args.rows; row += kCodesRowsMost)
    multiply_codes_tile<Format, kCodesRowsMost>(args, row);
  switch (args.rows - row) {
    case 1: return multiply_codes_tile<Format, 1>(args, row);
    case 2: return multiply_codes_tile<Format, 2>(args, row);
    case 3: return multiply_codes_tile<Format, 3>(args, row);
    case 4: return multiply_codes_tile<Format, 4>(args, row);
    case 5: return multiply_codes_tile<Format, 5>(args, row);
    case 6: return multiply_codes_tile<Format, 6>(args, row);
    case 7: return multiply_codes_tile<Format, 7>(args, row);
    case 8: return multiply_codes_tile<Format, 8>(args, row);
    case 9: return multiply_codes_tile<Format, 9>(args, row);
    case 10: return multiply_codes_tile<Format, 10>(args, row);
    case 11: return multiply_codes_tile<Format, 11>(args, row);
  }
}

// Folded in halves: 16 sums, 8, 4, 2, 1.
SPILLWAY_AVX512_INLINE float sum_of_16(__m256i values) {
  const __m512 wide = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16));
  const __m256 above = _mm256_castsi256_ps(_mm512_extracti64x4_epi64(_mm512_castps_si512(wide), 1));
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(wide), above);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

}  // namespace

SPILLWAY_AVX512 void pair_up_avx512(const uint16_t* values, size_t count, void* blocks) {
  const __m512i order =
      _mm512_set_epi32(0x001f001d, 0x001b0019, 0x001e001c, 0x001a0018, 0x00170015, 0x00130011, 0x00160014, 0x00120010,
                       0x000f000d, 0x000b0009, 0x000e000c, 0x000a0008, 0x00070005, 0x00030001, 0x00060004, 0x00020000);
  auto* out = static_cast<PairBlock*>(blocks);
  for (; count > 0; --count, values += PairBlock::kValues, ++out) {
    const __m512i bits = _mm512_loadu_si512(values);
    _mm512_storeu_si512(out->pairs, _mm512_permutexvar_epi16(order, bits));
    out->half_sums[0] = sum_of_16(_mm512_castsi512_si256(bits));
    out->half_sums[1] = sum_of_16(_mm512_extracti64x4_epi64(bits, 1));
    out->sum = out->half_sums[0] + out->half_sums[1];
  }
}

void gemm_panel_codes_avx512(const GemmPanel& args) {
  switch (args.format) {
    case PanelFormat::kBf16: __builtin_trap();  // never comes here
    case PanelFormat::kCodes4F16: return multiply_codes<PanelFormat::kCodes4F16>(args);
    case PanelFormat::kCodes8F16: return multiply_codes<PanelFormat::kCodes8F16>(args);
    case PanelFormat::kCodes4F32: return multiply_codes<PanelFormat::kCodes4F32>(args);
    case PanelFormat::kCodes8F32: return multiply_codes<PanelFormat::kCodes8F32>(args);
    case PanelFormat::kCodes8F32By16: return multiply_codes<PanelFormat::kCodes8F32By16>(args);
  }
}

}  // namespace spillway::cpu
