#include "kernels/cpu/gemm_avx512.h"

namespace spillway::cpu {
namespace {

constexpr uint32_t kInt8RowsMost = 6;  // at once: of two vectors of columns their sums and dots are registers

// The codes of values 4 * word and following of a block, of 16 columns.
template <PanelFormat Format>
SPILLWAY_VNNI_INLINE __m512i load_codes(const char* block, uint32_t word, uint32_t vector) {
  constexpr bool kNibbles = layout_of(Format).value_bits == 4;
  const char* const line = block + 4 * kPanelColumns * (kNibbles ? word / 2 : word) + 64 * vector;
  const __m512i words = _mm512_loadu_si512(line);
  if constexpr (kNibbles) {
    return _mm512_and_si512(word % 2 == 0 ? words : _mm512_srli_epi32(words, 4), _mm512_set1_epi8(15));
  } else {
    return words;
  }
}

// The product of Rows rows from `row` on and Vectors vectors of columns from `vector` on. Codes come apart in
// registers, for many rows as well: to keep them unpacked costs more than it saves.
template <PanelFormat Format, int Rows, int Vectors>
SPILLWAY_VNNI void multiply_int8_rows(const GemmPanel& args, uint32_t row, uint32_t vector) {
  constexpr PanelLayout kLayout = layout_of(Format);
  constexpr uint32_t kBlockWords = kLayout.block_values / 4;
  const size_t stride = args.depth / ActivationBlock::kValues;
  const auto* const rows = static_cast<const ActivationBlock*>(args.blocks) + row * stride;
  const __m512i start = _mm512_set1_epi32(kDotOffsetBits);
  __m512 sums[Rows][Vectors];
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < Vectors; ++v) sums[r][v] = _mm512_setzero_ps();
  const auto* block = static_cast<const char*>(args.panel);
  for (uint32_t k = 0; k < args.depth; k += kLayout.block_values, block += kLayout.block_bytes()) {
    const uint32_t half = k % ActivationBlock::kValues / 16;
    const ActivationBlock* const x = rows + k / ActivationBlock::kValues;
    __m512i dots[Rows][Vectors];
    for (int r = 0; r < Rows; ++r)
      for (int v = 0; v < Vectors; ++v) dots[r][v] = start;
#pragma GCC unroll 8
    for (uint32_t word = 0; word < kBlockWords; ++word) {
      __m512i codes[Vectors];
      for (uint32_t v = 0; v < Vectors; ++v) codes[v] = load_codes<Format>(block, word, vector + v);
      for (int r = 0; r < Rows; ++r) {
        const __m512i four =
            _mm512_broadcastd_epi32(_mm_loadu_si32(x[static_cast<size_t>(r) * stride].codes + 16 * half + 4 * word));
        for (int v = 0; v < Vectors; ++v) dots[r][v] = _mm512_dpbusd_epi32(dots[r][v], codes[v], four);
      }
    }
#pragma GCC unroll 4  // or GCC 12 keeps the dots in memory
    for (uint32_t v = 0; v < Vectors; ++v) {
      const Scales scales = load_scales<Format>(block + 4 * kPanelColumns * kLayout.block_words(), vector + v);
      const __m512 offset = _mm512_mul_ps(scales.d, _mm512_set1_ps(-kDotOffset));
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) {
        const ActivationBlock& of_row = x[static_cast<size_t>(r) * stride];
        const float sum = kLayout.block_values == 16 ? of_row.half_sums[half] : of_row.sum;
        const __m512 least = _mm512_fmadd_ps(scales.m, _mm512_set1_ps(sum), offset);
        const __m512 product = _mm512_fmadd_ps(scales.d, _mm512_castsi512_ps(dots[r][v]), least);
        sums[r][v] = _mm512_fmadd_ps(_mm512_set1_ps(of_row.scale), product, sums[r][v]);
      }
    }
    if (row == 0 && vector == 0) fetch_ahead<Format>(block);
  }
  store_tile(args, row, static_cast<int>(vector), sums);
}

template <PanelFormat Format, int Rows>
void multiply_int8_tile(const GemmPanel& args, uint32_t row) {
  if constexpr (Rows <= 4) {
    multiply_int8_rows<Format, Rows, kVectors>(args, row, 0);
  } else {
    multiply_int8_rows<Format, Rows, kVectors / 2>(args, row, 0);
    multiply_int8_rows<Format, Rows, kVectors / 2>(args, row, kVectors / 2);
  }
}

template <PanelFormat Format>
void multiply(const GemmPanel& args) {
  uint32_t row = 0;
  for (; row + kInt8RowsMost <= args.rows; row += kInt8RowsMost) multiply_int8_tile<Format, kInt8RowsMost>(args, row);
  switch (args.rows - row) {
    case 1: return multiply_int8_tile<Format, 1>(args, row);
    case 2: return multiply_int8_tile<Format, 2>(args, row);
    case 3: return multiply_int8_tile<Format, 3>(args, row);
    case 4: return multiply_int8_tile<Format, 4>(args, row);
    case 5: return multiply_int8_tile<Format, 5>(args, row);
  }
}

}  // namespace

SPILLWAY_VNNI void quantise_avx512(const uint16_t* values, size_t count, void* blocks) {
  auto* out = static_cast<ActivationBlock*>(blocks);
  const __m512i magnitude = _mm512_set1_epi16(0x7fff);
  for (; count > 0; --count, values += ActivationBlock::kValues, ++out) {
    const __m512i bits = _mm512_loadu_si512(values), absolute = _mm512_and_si512(bits, magnitude);
    const __m256i of_16 = _mm256_max_epu16(_mm512_castsi512_si256(absolute), _mm512_extracti64x4_epi64(absolute, 1));
    const __m128i of_8 = _mm_max_epu16(_mm256_castsi256_si128(of_16), _mm256_extracti128_si256(of_16, 1));
    const __m128i least = _mm_minpos_epu16(_mm_xor_si128(of_8, _mm_set1_epi16(-1)));
    const uint32_t greatest = ~static_cast<uint32_t>(_mm_cvtsi128_si32(least)) & 0xffff;
    if (!is_quantisable(greatest)) {
      *out = unquantisable_block(greatest);
      continue;
    }
    const __m128 value = _mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(greatest << 16)));
    const __m128 steps = _mm_set_ss(127);
    const __m512 inverse = _mm512_broadcastss_ps(_mm_div_ss(steps, value));
    const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(bits)),
                  high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(bits, 1));
    const __m128i first = _mm512_cvtepi32_epi8(
        _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(low, 16)), inverse)));
    const __m128i last = _mm512_cvtepi32_epi8(
        _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(high, 16)), inverse)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out->codes), first);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out->codes) + 1, last);
    // Sums of 4 codes; then of 8 of each half, side by side; then of 16.
    const __m128i ones = _mm_set1_epi8(1), zero = _mm_setzero_si128();
    const __m128i sums_first = _mm_dpbusd_epi32(zero, ones, first), sums_last = _mm_dpbusd_epi32(zero, ones, last);
    const __m128i eights =
        _mm_add_epi32(_mm_unpacklo_epi32(sums_first, sums_last), _mm_unpackhi_epi32(sums_first, sums_last));
    const __m128i halves = _mm_add_epi32(eights, _mm_unpackhi_epi64(eights, eights));
    const __m128 half_sums = _mm_cvtepi32_ps(halves);
    _mm_store_ss(&out->scale, _mm_div_ss(value, steps));
    _mm_store_ss(&out->sum, _mm_add_ss(half_sums, _mm_movehdup_ps(half_sums)));
    _mm_storel_pi(reinterpret_cast<__m64*>(out->half_sums), half_sums);
  }
}

void gemm_panel_int8_avx512(const GemmPanel& args) {
  switch (args.format) {
    case PanelFormat::kBf16: __builtin_trap();  // never comes here
    case PanelFormat::kCodes4F16: return multiply<PanelFormat::kCodes4F16>(args);
    case PanelFormat::kCodes8F16: return multiply<PanelFormat::kCodes8F16>(args);
    case PanelFormat::kCodes4F32: return multiply<PanelFormat::kCodes4F32>(args);
    case PanelFormat::kCodes8F32: return multiply<PanelFormat::kCodes8F32>(args);
    case PanelFormat::kCodes8F32By16: return multiply<PanelFormat::kCodes8F32By16>(args);
  }
}

}  // namespace spillway::cpu
