#include "kernels/cpu/gemm_avx2.h"

namespace spillway::cpu {
namespace {

constexpr int kTileRows = 4;        // 4 x 2 sums of i16, codes, a broadcast and a product in the 16 registers
constexpr unsigned kChunk = 512;    // depth that is worked on at once: a tile's rows of `a` and its columns stay in L1
constexpr unsigned kAhead = 16384;  // bytes that the panel is fetched ahead of use, into L2

struct Scratch {
  float sums[kPanelRowsMax][kPanelColumns];
};
static_assert(sizeof(Scratch) <= kPanelScratchBytes);

// Codes go as parts of 4 bits, of which those of 8 bits have two: 16 products of such a part and an int8, all that one
// i16 sums up of a block, are at most 16 * 15 * 127 < 2^15, where 8 bits would saturate.
template <PanelFormat Format>
constexpr int kParts = static_cast<int>(layout_of(Format).value_bits) / 4;

// Part `part` of the codes of values 4 * word and following of a block, of 8 columns.
template <PanelFormat Format>
SPILLWAY_AVX2_INLINE __m256i load_codes(const char* column, int word, int part) {
  constexpr int kLine = static_cast<int>(4 * kPanelColumns);
  const int line = kParts<Format> == 1 ? word / 2 : word, nibble = kParts<Format> == 1 ? word % 2 : part;
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(column + line * kLine));
  return _mm256_and_si256(nibble == 0 ? words : _mm256_srli_epi32(words, 4), _mm256_set1_epi8(15));
}

// The exact products of a block and Rows rows.
template <PanelFormat Format, int Rows, int Vectors>
SPILLWAY_AVX2_INLINE void multiply_block(const char* column, const signed char* const (&a)[Rows],
                                         __m256i (&dots)[Rows][Vectors]) {
  constexpr int kWords = static_cast<int>(layout_of(Format).block_values / 4);
  __m256i sums[kParts<Format>][Rows][Vectors];
#pragma GCC unroll 8
  for (int word = 0; word < kWords; ++word) {
    __m256i codes[kParts<Format>][Vectors];
#pragma GCC unroll 2
    for (int part = 0; part < kParts<Format>; ++part)
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) codes[part][v] = load_codes<Format>(column + 32 * v, word, part);
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      const __m256i four = _mm256_broadcastd_epi32(_mm_loadu_si32(a[r] + 4 * word));
#pragma GCC unroll 2
      for (int part = 0; part < kParts<Format>; ++part)
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) {
          const __m256i products = _mm256_maddubs_epi16(codes[part][v], four);
          sums[part][r][v] = word == 0 ? products : _mm256_add_epi16(sums[part][r][v], products);
        }
    }
  }
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) {
      dots[r][v] = _mm256_madd_epi16(sums[0][r][v], ones);
      if constexpr (kParts<Format> == 2)
        dots[r][v] = _mm256_add_epi32(dots[r][v], _mm256_slli_epi32(_mm256_madd_epi16(sums[1][r][v], ones), 4));
    }
}

// Adds the products of a run of blocks and Rows rows to their sums.
template <PanelFormat Format, int Rows>
SPILLWAY_AVX2 void add_tile(const char* block, unsigned depth, const ActivationBlock* a, size_t a_stride,
                            float (*sums)[kPanelColumns]) {
  constexpr PanelLayout kLayout = layout_of(Format);
  constexpr int kVectors = 2 / kParts<Format>;
  constexpr int kColumns = static_cast<int>(kPanelColumns);
  for (unsigned k = 0; k < depth; k += kLayout.block_values, block += kLayout.block_bytes()) {
    const unsigned half = k % ActivationBlock::kValues / 16;
    const ActivationBlock* rows[Rows];
    const signed char* codes[Rows];
    for (int r = 0; r < Rows; ++r) {
      rows[r] = a + static_cast<size_t>(r) * a_stride + k / ActivationBlock::kValues;
      codes[r] = rows[r]->codes + 16 * half;
    }
    for (unsigned line = 0; line < kLayout.block_bytes(); line += 64) _mm_prefetch(block + kAhead + line, _MM_HINT_T1);
    for (int column = 0; column < kColumns; column += 8 * kVectors) {
      __m256i dots[Rows][kVectors];
      multiply_block<Format, Rows, kVectors>(block + 4 * column, codes, dots);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        const Scales scales = load_scales<Format>(block + 4 * kPanelColumns * kLayout.block_words(), column / 8 + v);
        const __m256 offset = _mm256_mul_ps(scales.d, _mm256_set1_ps(-kDotOffset));
#pragma GCC unroll 4
        for (int r = 0; r < Rows; ++r) {
          const float sum = kLayout.block_values == 16 ? rows[r]->half_sums[half] : rows[r]->sum;
          const __m256 dot = _mm256_castsi256_ps(_mm256_add_epi32(dots[r][v], _mm256_set1_epi32(kDotOffsetBits)));
          const __m256 least = _mm256_fmadd_ps(scales.m, _mm256_set1_ps(sum), offset);
          float* const place = sums[r] + column + 8 * v;
          _mm256_storeu_ps(place, _mm256_fmadd_ps(_mm256_set1_ps(rows[r]->scale), _mm256_fmadd_ps(scales.d, dot, least),
                                                  _mm256_loadu_ps(place)));
        }
      }
    }
  }
}

template <PanelFormat Format>
void multiply(const GemmPanel& args) {
  Scratch& scratch = *static_cast<Scratch*>(args.scratch);
  const size_t a_stride = args.depth / ActivationBlock::kValues;
  const auto* chunk = static_cast<const char*>(args.panel);
  __builtin_memset(scratch.sums, 0, args.rows * sizeof scratch.sums[0]);
  for (unsigned first = 0; first < args.depth; first += kChunk, chunk += layout_of(Format).panel_bytes(kChunk)) {
    const unsigned left = args.depth - first, depth = left < kChunk ? left : kChunk;
    const ActivationBlock* a = static_cast<const ActivationBlock*>(args.blocks) + first / ActivationBlock::kValues;
    unsigned row = 0;
    for (; row + kTileRows <= args.rows; row += kTileRows, a += kTileRows * a_stride)
      add_tile<Format, kTileRows>(chunk, depth, a, a_stride, scratch.sums + row);
    switch (args.rows - row) {
      case 3: add_tile<Format, 3>(chunk, depth, a, a_stride, scratch.sums + row); break;
      case 2: add_tile<Format, 2>(chunk, depth, a, a_stride, scratch.sums + row); break;
      case 1: add_tile<Format, 1>(chunk, depth, a, a_stride, scratch.sums + row); break;
    }
  }
  for (unsigned row = 0; row < args.rows; ++row) store_row(args, row, scratch.sums[row]);
}

// 16 values as int8 codes in i16.
SPILLWAY_AVX2_INLINE __m256i codes_of(__m256i values, __m256 inverse) {
  __m256i codes[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m128i eight = i == 0 ? _mm256_castsi256_si128(values) : _mm256_extracti128_si256(values, 1);
    const __m256 wide = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight), 16));
    codes[i] = _mm256_cvtps_epi32(_mm256_mul_ps(wide, inverse));
  }
  return _mm256_permute4x64_epi64(_mm256_packs_epi32(codes[0], codes[1]), 0xd8);
}

}  // namespace

SPILLWAY_AVX2 void quantise_avx2(const uint16_t* values, size_t count, void* blocks) {
  auto* out = static_cast<ActivationBlock*>(blocks);
  for (; count > 0; --count, values += ActivationBlock::kValues, ++out) {
    const __m256i magnitude = _mm256_set1_epi16(0x7fff);
    const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values)),
                  last = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values) + 1);
    const __m256i of_16 = _mm256_max_epu16(_mm256_and_si256(first, magnitude), _mm256_and_si256(last, magnitude));
    const __m128i of_8 = _mm_max_epu16(_mm256_castsi256_si128(of_16), _mm256_extracti128_si256(of_16, 1));
    const __m128i least = _mm_minpos_epu16(_mm_xor_si128(of_8, _mm_set1_epi16(-1)));
    const unsigned greatest = ~static_cast<unsigned>(_mm_cvtsi128_si32(least)) & 0xffff;
    if (!is_quantisable(greatest)) {
      *out = unquantisable_block(greatest);
      continue;
    }
    const __m128 value = _mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(greatest << 16))), steps = _mm_set_ss(127);
    const __m256 inverse = _mm256_broadcastss_ps(_mm_div_ss(steps, value));
    const __m256i codes_first = codes_of(first, inverse), codes_last = codes_of(last, inverse);
    const __m256i codes = _mm256_permute4x64_epi64(_mm256_packs_epi16(codes_first, codes_last), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out->codes), codes);
    const __m256i ones = _mm256_set1_epi16(1);
    const __m256i pairs = _mm256_hadd_epi32(_mm256_madd_epi16(codes_first, ones), _mm256_madd_epi16(codes_last, ones));
    const __m128i fours = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    const __m128 half_sums = _mm_cvtepi32_ps(_mm_hadd_epi32(fours, fours));
    _mm_store_ss(&out->scale, _mm_div_ss(value, steps));
    _mm_store_ss(&out->sum, _mm_add_ss(half_sums, _mm_movehdup_ps(half_sums)));
    _mm_storel_pi(reinterpret_cast<__m64*>(out->half_sums), half_sums);
  }
}

void gemm_panel_int8_avx2(const GemmPanel& args) {
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
