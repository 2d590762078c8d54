#include "kernels/cpu/gemm_avx512.h"

namespace spillway::cpu {
namespace {

constexpr uint32_t kInt8Chunk = 256;  // depth that is worked on at once: its codes stay in L1

struct Int8Scratch {
  float sums[kPanelRowsMax][kPanelColumns];
};
static_assert(sizeof(Int8Scratch) <= kPanelScratchBytes);

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

// Some rows of `a` and what they have summed so far.
struct CodedRows {
  const ActivationBlock* a;
  size_t stride;
  float (*sums)[kPanelColumns];
};

// Adds the products of a run of blocks and Rows rows to their sums. `fetches`: what follows in the panel as well.
template <PanelFormat Format, int Rows>
SPILLWAY_VNNI void add_tile(const char* block, uint32_t depth, const CodedRows& rows, bool fetches) {
  constexpr PanelLayout kLayout = layout_of(Format);
  constexpr uint32_t kBlockWords = kLayout.block_values / 4;
  const __m512i start = _mm512_set1_epi32(kDotOffsetBits);
  const ActivationBlock* const a = rows.a;  // in registers, whatever keep_order() says of memory
  const size_t stride = rows.stride;
  float(*const sums)[kPanelColumns] = rows.sums;
  for (uint32_t k = 0; k < depth; k += kLayout.block_values, block += kLayout.block_bytes()) {
    const uint32_t half = k % ActivationBlock::kValues / 16;
    const ActivationBlock* const x = a + k / ActivationBlock::kValues;
    __m512i dots[Rows][kVectors];
    for (int r = 0; r < Rows; ++r)
      for (int v = 0; v < kVectors; ++v) dots[r][v] = start;
#pragma GCC unroll 8
    for (uint32_t word = 0; word < kBlockWords; ++word) {
      __m512i codes[kVectors];
      for (uint32_t v = 0; v < kVectors; ++v) codes[v] = load_codes<Format>(block, word, v);
      for (int r = 0; r < Rows; ++r) {
        const __m512i four = _mm512_broadcastd_epi32(
            _mm_loadu_si32(x[static_cast<size_t>(r) * stride].codes + 16 * half + 4 * word));
        for (int v = 0; v < kVectors; ++v) dots[r][v] = _mm512_dpbusd_epi32(dots[r][v], codes[v], four);
      }
    }
#pragma GCC unroll 4  // or GCC 12 keeps the dots in memory
    for (uint32_t v = 0; v < kVectors; ++v) {
      const Scales scales = load_scales<Format>(block + 4 * kPanelColumns * kLayout.block_words(), v);
      const __m512 offset = _mm512_mul_ps(scales.d, _mm512_set1_ps(-kDotOffset));
#pragma GCC unroll 6
      for (int r = 0; r < Rows; ++r) {
        const ActivationBlock& of_row = x[static_cast<size_t>(r) * stride];
        const float sum = kLayout.block_values == 16 ? of_row.half_sums[half] : of_row.sum;
        const __m512 least = _mm512_fmadd_ps(scales.m, _mm512_set1_ps(sum), offset);
        const __m512 product = _mm512_fmadd_ps(scales.d, _mm512_castsi512_ps(dots[r][v]), least);
        float* const place = sums[r] + 16 * v;
        _mm512_storeu_ps(place, _mm512_fmadd_ps(_mm512_set1_ps(of_row.scale), product, _mm512_loadu_ps(place)));
        keep_order();
      }
    }
    if (fetches)
      for (uint32_t line = 0; line < kLayout.block_bytes(); line += 64)
        _mm_prefetch(block + kAhead + line, _MM_HINT_T1);
  }
}

template <PanelFormat Format>
void add_tile(const char* block, uint32_t depth, const CodedRows& rows, uint32_t count, bool fetches) {
  switch (count) {
    case kTileRows: return add_tile<Format, kTileRows>(block, depth, rows, fetches);
    case 5: return add_tile<Format, 5>(block, depth, rows, fetches);
    case 4: return add_tile<Format, 4>(block, depth, rows, fetches);
    case 3: return add_tile<Format, 3>(block, depth, rows, fetches);
    case 2: return add_tile<Format, 2>(block, depth, rows, fetches);
    case 1: return add_tile<Format, 1>(block, depth, rows, fetches);
  }
}

// Codes come apart in registers, for many rows as well: to keep them unpacked costs more than it saves.
template <PanelFormat Format>
void multiply(const GemmPanel& args) {
  Int8Scratch& scratch = *static_cast<Int8Scratch*>(args.scratch);
  const size_t stride = args.depth / ActivationBlock::kValues;
  const auto* const a = static_cast<const ActivationBlock*>(args.blocks);
  const auto* chunk = static_cast<const char*>(args.panel);
  for (uint32_t first = 0; first < args.depth;
       first += kInt8Chunk, chunk += layout_of(Format).panel_bytes(kInt8Chunk)) {
    const uint32_t left = args.depth - first, depth = left < kInt8Chunk ? left : kInt8Chunk;
    for (uint32_t row = 0; row < args.rows; row += kTileRows) {
      const uint32_t count = args.rows - row < kTileRows ? args.rows - row : kTileRows;
      float(*const sums)[kPanelColumns] = scratch.sums + row;
      if (first == 0) __builtin_memset(sums, 0, count * sizeof sums[0]);
      const ActivationBlock* const blocks = a + row * stride + first / ActivationBlock::kValues;
      add_tile<Format>(chunk, depth, {blocks, stride, sums}, count, row == 0);
      if (left == depth) store_rows(args, row, count, sums);  // at once, so that the way to memory is not waited for
    }
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
