#include "kernels/cpu/gemm_avx512.h"

namespace spillway::cpu {
namespace {

constexpr uint32_t kChunk = 512;  // depth of a narrow panel that is unpacked at once

struct Scratch {
  uint16_t pairs[kChunk * kPanelColumns];    // of a chunk, as PanelFormat::kBf16
  float sums[kPanelRowsMax][kPanelColumns];  // of the chunks so far
};
static_assert(sizeof(Scratch) <= kPanelScratchBytes);

// A run over ascending pairs of k. More than one make a panel's depth: sums are carried from one to the next.
struct Part {
  const uint16_t* pairs = nullptr;  // bf16 [(depth + 1) / 2][64][2]
  uint32_t first = 0, depth = 0;
  float (*carried)[kPanelColumns] = nullptr;  // [rows]
  bool is_last = true;
};

// Every output element: one chain of vdpbf16ps over ascending pairs of k from zero, whatever Rows is.
template <int Rows>
SPILLWAY_AVX512 void gemm_tile(const GemmPanel& args, uint32_t row, const Part& part) {
  __m512 sums[Rows][kVectors];
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < kVectors; ++v)
      sums[r][v] = part.first == 0 ? _mm512_setzero_ps() : _mm512_load_ps(part.carried[row + r] + 16 * v);
  const uint16_t* const a = args.a + row * args.a_stride + part.first;
  const uint16_t* b = part.pairs;
  const uint32_t pairs = part.depth / 2;
  for (uint32_t pair = 0; pair < pairs; ++pair, b += 2 * kPanelColumns) {
    __m512bh panel[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      panel[v] = (__m512bh)_mm512_loadu_si512(b + 32 * v);
      if (Rows < 4) _mm_prefetch(reinterpret_cast<const char*>(b + 32 * v) + kAhead, _MM_HINT_T0);
    }
    for (int r = 0; r < Rows; ++r) {
      const __m512bh value = broadcast_pair(a + static_cast<size_t>(r) * args.a_stride + 2 * pair);
      for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], panel[v], value);
    }
  }
  if (part.depth % 2 != 0) {  // the panel's last pair is padded with zero; `a` has no element there
    for (int r = 0; r < Rows; ++r) {
      const unsigned short last[2] = {a[static_cast<size_t>(r) * args.a_stride + part.depth - 1], 0};
      const __m512bh value = broadcast_pair(last);
      for (int v = 0; v < kVectors; ++v)
        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], (__m512bh)_mm512_loadu_si512(b + 32 * v), value);
    }
  }
  if (part.is_last) return store_tile<Rows>(args, row, sums);
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < kVectors; ++v) _mm512_store_ps(part.carried[row + r] + 16 * v, sums[r][v]);
}

void gemm_part(const GemmPanel& args, const Part& part) {
  uint32_t row = 0;
  for (; row + kTileRows <= args.rows; row += kTileRows) gemm_tile<kTileRows>(args, row, part);
  switch (args.rows - row) {
    case 5: gemm_tile<5>(args, row, part); break;
    case 4: gemm_tile<4>(args, row, part); break;
    case 3: gemm_tile<3>(args, row, part); break;
    case 2: gemm_tile<2>(args, row, part); break;
    case 1: gemm_tile<1>(args, row, part); break;
  }
}

// Code i of each of 16 words, as f32.
template <PanelFormat Format>
SPILLWAY_AVX512_INLINE __m512 code_of(__m512i words, uint32_t i) {
  if constexpr (layout_of(Format).value_bits == 4) {  // a table of 16: the bits above are not looked at
    const __m512 table = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_permutexvar_ps(_mm512_srli_epi32(words, i % 4 * 8 + i / 4 * 4), table);
  } else {
    return _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(words, 8 * i), _mm512_set1_epi32(255)));
  }
}

// Values 2i and 2i + 1 of each of 16 words, rounded to bf16: to nearest even, as pack() does for stored bf16.
template <PanelFormat Format>
SPILLWAY_AVX512_INLINE __m512bh pair_of(__m512i words, uint32_t i, __m512 d, __m512 m) {
  const __m512 even = _mm512_fmadd_ps(code_of<Format>(words, 2 * i), d, m);
  const __m512 odd = _mm512_fmadd_ps(code_of<Format>(words, 2 * i + 1), d, m);
  const __m512i columns = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i above = _mm512_slli_epi32(_mm512_add_epi32(columns, _mm512_set1_epi32(16)), 16);
  __m512i places = _mm512_or_si512(columns, above);  // of each column's pair, in odd after even
#ifdef __clang__
  __asm__("" : "+v"(places));  // Clang 16 ends by a signal where it knows the order of bf16 values
#endif
  return (__m512bh)_mm512_permutexvar_epi16(places, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}

// The chain of gemm_tile, with weights unpacked in registers.
template <PanelFormat Format, int Rows>
SPILLWAY_AVX512 void few_rows(const GemmPanel& args) {
  constexpr PanelLayout kLayout = layout_of(Format);
  constexpr uint32_t kPairs = kLayout.word_values() / 2;
  __m512 sums[Rows][kVectors];
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_setzero_ps();
  const auto* line = static_cast<const char*>(args.panel);
  const uint16_t* a = args.a;
  for (uint32_t k = 0; k < args.depth; k += kLayout.block_values) {
    Scales scales[kVectors];
    for (uint32_t v = 0; v < kVectors; ++v)
      scales[v] = load_scales<Format>(line + 4 * kPanelColumns * size_t{kLayout.block_words()}, v);
    for (uint32_t word = 0; word < kLayout.block_words(); ++word, line += 4 * kPanelColumns) {
      __m512i words[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        words[v] = _mm512_loadu_si512(line + 64 * v);
        _mm_prefetch(line + 64 * v + kAhead, _MM_HINT_T0);
      }
#pragma GCC unroll 4
      for (uint32_t i = 0; i < kPairs; ++i, a += 2) {
        for (int v = 0; v < kVectors; ++v) {
          const __m512bh weights = pair_of<Format>(words[v], i, scales[v].d, scales[v].m);
          for (int r = 0; r < Rows; ++r)
            sums[r][v] =
                _mm512_dpbf16_ps(sums[r][v], weights, broadcast_pair(a + static_cast<size_t>(r) * args.a_stride));
        }
      }
    }
    line += 2 * kPanelColumns * kLayout.scale_bytes;
  }
  store_tile<Rows>(args, 0, sums);
}

template <PanelFormat Format>
SPILLWAY_AVX512 void unpack(const char* block, uint32_t depth, uint16_t* pairs) {
  constexpr PanelLayout kLayout = layout_of(Format);
  constexpr uint32_t kPairs = kLayout.word_values() / 2;
  for (uint32_t k = 0; k < depth; k += kLayout.block_values, block += kLayout.block_bytes()) {
    Scales scales[kVectors];
    for (uint32_t v = 0; v < kVectors; ++v)
      scales[v] = load_scales<Format>(block + 4 * kPanelColumns * size_t{kLayout.block_words()}, v);
    for (uint32_t word = 0; word < kLayout.block_words(); ++word) {
      for (uint32_t v = 0; v < kVectors; ++v) {
        const char* const line = block + 4 * kPanelColumns * size_t{word} + 64 * v;
        const __m512i words = _mm512_loadu_si512(line);
        _mm_prefetch(line + kAhead, _MM_HINT_T0);
#pragma GCC unroll 4
        for (uint32_t i = 0; i < kPairs; ++i)
          _mm512_storeu_si512(pairs + 2 * kPanelColumns * i + 32 * v,
                              (__m512i)pair_of<Format>(words, i, scales[v].d, scales[v].m));
      }
      pairs += kPanelColumns * kLayout.word_values();
    }
  }
}

template <PanelFormat Format>
void gemm_narrow(const GemmPanel& args) {
  switch (args.rows) {
    case 1: return few_rows<Format, 1>(args);
    case 2: return few_rows<Format, 2>(args);
    case kFewRows: return few_rows<Format, kFewRows>(args);
  }
  Scratch& scratch = *static_cast<Scratch*>(args.scratch);
  const auto* chunk = static_cast<const char*>(args.panel);
  for (uint32_t first = 0; first < args.depth; first += kChunk, chunk += layout_of(Format).panel_bytes(kChunk)) {
    const uint32_t left = args.depth - first, depth = left < kChunk ? left : kChunk;
    unpack<Format>(chunk, depth, scratch.pairs);
    gemm_part(args, {scratch.pairs, first, depth, scratch.sums, depth == left});
  }
}

}  // namespace

void gemm_panel_avx512(const GemmPanel& args) {
  switch (args.format) {
    case PanelFormat::kBf16:
      return gemm_part(args, {.pairs = static_cast<const uint16_t*>(args.panel), .depth = args.depth});
    case PanelFormat::kCodes4F16: return gemm_narrow<PanelFormat::kCodes4F16>(args);
    case PanelFormat::kCodes8F16: return gemm_narrow<PanelFormat::kCodes8F16>(args);
    case PanelFormat::kCodes4F32: return gemm_narrow<PanelFormat::kCodes4F32>(args);
    case PanelFormat::kCodes8F32: return gemm_narrow<PanelFormat::kCodes8F32>(args);
    case PanelFormat::kCodes8F32By16: return gemm_narrow<PanelFormat::kCodes8F32By16>(args);
  }
}

}  // namespace spillway::cpu
