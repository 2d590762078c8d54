#include "kernels/cpu/gemm_avx512.h"

namespace spillway::cpu {
namespace {

// Every output element: one chain of vdpbf16ps over ascending pairs of k from zero, whatever Rows is.
template <int Rows>
SPILLWAY_AVX512 void gemm_tile(const GemmPanel& args, uint32_t row) {
  __m512 sums[Rows][kVectors];
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_setzero_ps();
  const uint16_t* const a = args.a + row * args.a_stride;
  const auto* b = static_cast<const uint16_t*>(args.panel);
  const uint32_t pairs = args.depth / 2;
  for (uint32_t pair = 0; pair < pairs; ++pair, b += 2 * kPanelColumns) {
    __m512bh panel[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      panel[v] = (__m512bh)_mm512_loadu_si512(b + 32 * v);
      if (Rows < 4) _mm_prefetch(reinterpret_cast<const char*>(b + 32 * v) + kAhead, _MM_HINT_T1);
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
  store_tile(args, row, 0, sums);
}

}  // namespace

void gemm_panel_avx512(const GemmPanel& args) {
  uint32_t row = 0;
  for (; row + kTileRows <= args.rows; row += kTileRows) gemm_tile<kTileRows>(args, row);
  switch (args.rows - row) {
    case 5: return gemm_tile<5>(args, row);
    case 4: return gemm_tile<4>(args, row);
    case 3: return gemm_tile<3>(args, row);
    case 2: return gemm_tile<2>(args, row);
    case 1: return gemm_tile<1>(args, row);
  }
}

}  // namespace spillway::cpu
