#include "kernels/cpu/avx512.h"
#include "kernels/cpu/isa_kernels.h"

namespace spillway::cpu {
namespace {

constexpr int kVectors = 4;     // zmm of one panel row: 64 columns
constexpr int kTileRows = 6;    // 6 x 4 accumulators, 4 panel vectors and a broadcast fill the 32 registers
constexpr uint32_t kAhead = 8;  // pairs of depth that the panel is fetched ahead of use

SPILLWAY_AVX512_INLINE __mmask16 lane_mask(uint32_t columns, int vector) {
  const uint32_t first = static_cast<uint32_t>(vector) * 16;
  return columns >= first + 16 ? __mmask16(0xffff)
         : columns <= first    ? __mmask16(0)
                               : __mmask16((1u << (columns - first)) - 1);
}

SPILLWAY_AVX512_INLINE __m512 swiglu(__m512 gate, __m512 up) {
  const __m512 negated = _mm512_mul_ps(gate, _mm512_set1_ps(-1.44269504f));
  const __m512 divisor = _mm512_add_ps(_mm512_set1_ps(1.0f), exp2_avx512(negated));
  return _mm512_mul_ps(_mm512_div_ps(gate, divisor), up);
}

template <int Rows>
SPILLWAY_AVX512_INLINE void store_tile(const GemmPanel& args, uint32_t row, const __m512 (&sums)[Rows][kVectors]) {
  for (int r = 0; r < Rows; ++r) {
    const size_t place = (row + static_cast<uint32_t>(r)) * args.out_stride;
    if (args.epilogue == PanelEpilogue::kSwiGlu) {
      for (int half = 0; half < 2; ++half) {
        const __m512 value = swiglu(sums[r][2 * half], sums[r][2 * half + 1]);
        _mm256_mask_storeu_epi16(static_cast<uint16_t*>(args.out) + place + 16 * half, lane_mask(args.columns, half),
                                 (__m256i)_mm512_cvtneps_pbh(value));
      }
      continue;
    }
    float* const out = static_cast<float*>(args.out) + place;
    for (int v = 0; v < kVectors; ++v) {
      const __mmask16 mask = lane_mask(args.columns, v);
      __m512 value = sums[r][v];
      if (args.epilogue == PanelEpilogue::kAdd) value = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out + 16 * v), value);
      _mm512_mask_storeu_ps(out + 16 * v, mask, value);
    }
  }
}

// Every output element: one chain of vdpbf16ps over ascending pairs of k from zero, whatever Rows is.
template <int Rows>
SPILLWAY_AVX512 void gemm_tile(const GemmPanel& args, uint32_t row) {
  __m512 sums[Rows][kVectors];
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_setzero_ps();
  const uint16_t* const a = args.a + row * args.a_stride;
  const uint16_t* b = args.panel;
  const uint32_t pairs = args.depth / 2;
  for (uint32_t pair = 0; pair < pairs; ++pair, b += 2 * kPanelColumns) {
    __m512bh panel[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      panel[v] = (__m512bh)_mm512_loadu_si512(b + 32 * v);
      if (Rows < 4) _mm_prefetch(reinterpret_cast<const char*>(b + 32 * v + kAhead * 2 * kPanelColumns), _MM_HINT_T0);
    }
    for (int r = 0; r < Rows; ++r) {
      const __m512bh value = broadcast_pair(a + static_cast<size_t>(r) * args.a_stride + 2 * pair);
      for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], panel[v], value);
    }
  }
  if (args.depth % 2 != 0) {  // the panel's last pair is padded with zero; `a` has no element there
    for (int r = 0; r < Rows; ++r) {
      const unsigned short last[2] = {a[static_cast<size_t>(r) * args.a_stride + args.depth - 1], 0};
      const __m512bh value = broadcast_pair(last);
      for (int v = 0; v < kVectors; ++v)
        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], (__m512bh)_mm512_loadu_si512(b + 32 * v), value);
    }
  }
  store_tile<Rows>(args, row, sums);
}

}  // namespace

void gemm_panel_avx512(const GemmPanel& args) {
  uint32_t row = 0;
  for (; row + kTileRows <= args.rows; row += kTileRows) gemm_tile<kTileRows>(args, row);
  switch (args.rows - row) {
    case 5: gemm_tile<5>(args, row); break;
    case 4: gemm_tile<4>(args, row); break;
    case 3: gemm_tile<3>(args, row); break;
    case 2: gemm_tile<2>(args, row); break;
    case 1: gemm_tile<1>(args, row); break;
  }
}

}  // namespace spillway::cpu
