#include "kernels/cpu/avx2.h"
#include "kernels/cpu/isa_kernels.h"

// Scores: one chain of fused multiply-adds per (query, key) over ascending dims. Values: one per (query, dim) over
// ascending keys, starting from the rescaled o; p stays f32. A key that a query does not see never enters a chain, so
// nothing depends on which queries share a tile.
namespace spillway::cpu {
namespace {

constexpr int kQueriesMax = 6;
constexpr unsigned kDimsMax = 256;
constexpr unsigned kTile = 16;  // keys of one K tile: two vectors

// Vectors of 8 sums that are open per query, so that at least 8 chains run at once and all fit in registers.
template <int M>
inline constexpr int kVectors = M == 1   ? 8
                                : M <= 3 ? 4
                                         : 2;

using Scores = float[kFoldTokensMax];  // of one query, by key

// scores[m][first .. first + 8 V) = q[m] . k for M queries. q: f32 [M][kDimsMax].
template <int M, int V>
SPILLWAY_AVX2 void score(const AttentionFold& args, const float* q, unsigned first, Scores* scores) {
  const unsigned short* k = args.k + static_cast<size_t>(first) * args.head_dim;
  const unsigned short* ahead = args.next_k + static_cast<size_t>(first) * args.head_dim;
  const size_t tile_stride = static_cast<size_t>(kTile) * args.head_dim;
  __m256 sums[M][V];
#pragma GCC unroll 6
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sums[m][v] = _mm256_setzero_ps();
  }
  for (unsigned dim = 0; dim < args.head_dim; dim += 2, k += 2 * kTile, ahead += 16 * V) {
    __m256 keys[V];
#pragma GCC unroll 4
    for (int line = 0; line < V / 2; ++line)
      _mm_prefetch(reinterpret_cast<const char*>(ahead + 32 * line), _MM_HINT_T1);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v)
      keys[v] = even_halves(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(k + v / 2 * tile_stride) + v % 2));
#pragma GCC unroll 6
    for (int m = 0; m < M; ++m) {
      const __m256 x = _mm256_broadcast_ss(q + m * kDimsMax + dim);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[m][v] = _mm256_fmadd_ps(x, keys[v], sums[m][v]);
    }
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v)
      keys[v] = odd_halves(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(k + v / 2 * tile_stride) + v % 2));
#pragma GCC unroll 6
    for (int m = 0; m < M; ++m) {
      const __m256 x = _mm256_broadcast_ss(q + m * kDimsMax + dim + 1);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[m][v] = _mm256_fmadd_ps(x, keys[v], sums[m][v]);
    }
  }
#pragma GCC unroll 6
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) _mm256_store_ps(scores[m] + first + 8 * v, sums[m][v]);
  }
}

// All keys of `tiles` tiles.
template <int M, int V>
SPILLWAY_AVX2 void score_from(const AttentionFold& args, const float* q, unsigned first, unsigned tiles,
                              Scores* scores) {
  for (; first + 8 * V <= kTile * tiles; first += 8 * V) score<M, V>(args, q, first, scores);
  if constexpr (V > 2) score_from<M, V / 2>(args, q, first, tiles, scores);
}

SPILLWAY_AVX2_INLINE float highest_of(__m256 values) {
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps(values, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

// Updates m and l of one query, turns its scores into p, for int8 times the scale of V (any bits where not seen), and
// returns what o is to be scaled by.
SPILLWAY_AVX2 float soften(const AttentionFold& args, unsigned vector, unsigned tiles, float* scores) {
  const __m256 nothing = _mm256_set1_ps(-__builtin_inff());
  const __m256i valid = _mm256_set1_epi32(args.valid[vector]);
  __m256i key = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  __m256 scaled[kFoldTokensMax / 8];
  __m256 highest = nothing;
  for (unsigned i = 0; i < 2 * tiles; ++i, key = _mm256_add_epi32(key, _mm256_set1_epi32(8))) {
    __m256 s = _mm256_mul_ps(_mm256_load_ps(scores + 8 * i), _mm256_set1_ps(args.scale_log2));
    if (args.k_scales != nullptr) s = _mm256_mul_ps(s, _mm256_loadu_ps(args.k_scales + 8 * i));
    scaled[i] = _mm256_blendv_ps(nothing, s, _mm256_castsi256_ps(_mm256_cmpgt_epi32(valid, key)));
    highest = _mm256_max_ps(highest, scaled[i]);
  }
  const float before = args.m[vector];
  const float top = highest_of(highest);
  const float m = top > before ? top : before;
  const __m256 alpha = exp2_avx2(_mm256_set1_ps(before - m));
  float* const lanes = args.l + static_cast<size_t>(vector) * kLanes;
  __m256 l[2] = {_mm256_mul_ps(_mm256_loadu_ps(lanes), alpha), _mm256_mul_ps(_mm256_loadu_ps(lanes + 8), alpha)};
  for (unsigned t = 0; t < tiles; ++t) {
#pragma GCC unroll 2
    for (unsigned half = 0; half < 2; ++half) {
      __m256 p = exp2_avx2(_mm256_sub_ps(scaled[2 * t + half], _mm256_set1_ps(m)));
      l[half] = _mm256_add_ps(l[half], p);
      if (args.v_scales != nullptr) p = _mm256_mul_ps(p, _mm256_loadu_ps(args.v_scales + kTile * t + 8 * half));
      _mm256_store_ps(scores + kTile * t + 8 * half, p);
    }
  }
  _mm256_storeu_ps(lanes, l[0]);
  _mm256_storeu_ps(lanes + 8, l[1]);
  args.m[vector] = m;
  return _mm256_cvtss_f32(alpha);
}

// The last vector of dims may be less than whole. V == 1 alone meets it, at the cost of masks.
template <int V>
SPILLWAY_AVX2_INLINE __m256 load_o(const float* o, __m256i mask) {
  return V == 1 ? _mm256_maskload_ps(o, mask) : _mm256_loadu_ps(o);
}
template <int V>
SPILLWAY_AVX2_INLINE __m256i load_pairs(const unsigned short* v, __m256i mask) {
  return V == 1 ? _mm256_maskload_epi32(reinterpret_cast<const int*>(v), mask)
                : _mm256_loadu_si256(reinterpret_cast<const __m256i*>(v));
}

// o[m] = o[m] * alpha[m] + sum over `valid` keys p v, for M queries and V vectors of 8 dims from `dim` on.
template <int M, int V>
SPILLWAY_AVX2 void add_values(const AttentionFold& args, unsigned vector, unsigned dim, const float* alpha,
                              const Scores* p) {
  const unsigned valid = args.valid[vector];
  const unsigned short* v = args.v + dim * 2;
  float* const o = args.o + static_cast<size_t>(vector) * args.head_dim + dim;
  const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(args.head_dim - dim)),
                                          _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  __m256 sums[M][V];
#pragma GCC unroll 6
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int c = 0; c < V; ++c)
      sums[m][c] = _mm256_mul_ps(load_o<V>(o + m * args.head_dim + 8 * c, mask), _mm256_set1_ps(alpha[m]));
  }
  const unsigned short* ahead = args.next_v + static_cast<size_t>(dim) * args.tokens;
  for (unsigned key = 0; key < valid; key += 2, v += 2 * args.head_dim, ahead += 16 * V) {
    __m256 values[V];
#pragma GCC unroll 4
    for (int line = 0; line < (V + 1) / 2; ++line)
      _mm_prefetch(reinterpret_cast<const char*>(ahead + 32 * line), _MM_HINT_T1);
#pragma GCC unroll 8
    for (int c = 0; c < V; ++c) values[c] = even_halves(load_pairs<V>(v + 16 * c, mask));
#pragma GCC unroll 6
    for (int m = 0; m < M; ++m) {
      const __m256 x = _mm256_broadcast_ss(p[m] + key);
#pragma GCC unroll 8
      for (int c = 0; c < V; ++c) sums[m][c] = _mm256_fmadd_ps(x, values[c], sums[m][c]);
    }
    if (key + 1 == valid) break;  // an odd last key: its partner's value must not meet even a zero p
#pragma GCC unroll 8
    for (int c = 0; c < V; ++c) values[c] = odd_halves(load_pairs<V>(v + 16 * c, mask));
#pragma GCC unroll 6
    for (int m = 0; m < M; ++m) {
      const __m256 x = _mm256_broadcast_ss(p[m] + key + 1);
#pragma GCC unroll 8
      for (int c = 0; c < V; ++c) sums[m][c] = _mm256_fmadd_ps(x, values[c], sums[m][c]);
    }
  }
#pragma GCC unroll 6
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int c = 0; c < V; ++c) {
      float* const place = o + m * args.head_dim + 8 * c;
      if constexpr (V == 1) {
        _mm256_maskstore_ps(place, mask, sums[m][c]);
      } else {
        _mm256_storeu_ps(place, sums[m][c]);
      }
    }
  }
}

// All dims from `dim` on.
template <int M, int V>
SPILLWAY_AVX2 void add_values_from(const AttentionFold& args, unsigned vector, unsigned dim, const float* alpha,
                                   const Scores* p) {
  for (; dim + (V == 1 ? 1 : 8 * V) <= args.head_dim; dim += 8 * V) add_values<M, V>(args, vector, dim, alpha, p);
  if constexpr (V > 1) add_values_from<M, V / 2>(args, vector, dim, alpha, p);
}

template <int M>
SPILLWAY_AVX2 void score_all(const AttentionFold& args, unsigned vector, unsigned tiles, Scores* scores) {
  alignas(32) float q[M][kDimsMax];
  for (unsigned m = 0; m < M; ++m)
    widen(args.q + (static_cast<size_t>(vector) + m) * args.head_dim, args.head_dim, q[m]);
  score_from<M, kVectors<M>>(args, q[0], 0, tiles, scores);
}
template <int M>
SPILLWAY_AVX2 void add_all_values(const AttentionFold& args, unsigned vector, const float* alpha, const Scores* p) {
  add_values_from<M, kVectors<M>>(args, vector, 0, alpha, p);
}

using ScoreAll = void (*)(const AttentionFold&, unsigned, unsigned, Scores*);
using AddAllValues = void (*)(const AttentionFold&, unsigned, const float*, const Scores*);
constexpr ScoreAll kScoreAll[] = {nullptr,      score_all<1>, score_all<2>, score_all<3>,
                                  score_all<4>, score_all<5>, score_all<6>};
constexpr AddAllValues kAddAllValues[] = {nullptr,           add_all_values<1>, add_all_values<2>, add_all_values<3>,
                                          add_all_values<4>, add_all_values<5>, add_all_values<6>};

// `count` queries from `first` on, all of which see at least one key.
SPILLWAY_AVX2 void fold_queries(const AttentionFold& args, unsigned first, unsigned count) {
  alignas(32) Scores scores[kQueriesMax];
  float alpha[kQueriesMax];
  const unsigned tiles = (args.valid[first + count - 1] + kTile - 1) / kTile;  // the last query sees most
  kScoreAll[count](args, first, tiles, scores);
  for (unsigned i = 0; i < count; ++i) alpha[i] = soften(args, first + i, tiles, scores[i]);
  for (unsigned i = 0; i < count;) {  // queries that see the same keys share the loads of v
    unsigned end = i + 1;
    while (end < count && args.valid[first + end] == args.valid[first + i]) ++end;
    kAddAllValues[end - i](args, first + i, alpha + i, scores + i);
    i = end;
  }
}

}  // namespace

SPILLWAY_AVX2 void widen_codes_avx2(const CodesToWiden& args) {
  constexpr unsigned kLine = 64;
  for (unsigned i = 0; i < args.count; i += 16) {
    if (i % kLine == 0) _mm_prefetch(reinterpret_cast<const char*>(args.ahead + i), _MM_HINT_T1);
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(args.codes + i));
    const __m256 low = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
    const __m256 high = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(codes, 8)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(args.values + i), narrowed(low, high));
  }
}

void attention_fold_avx2(const AttentionFold& args) {
  unsigned first = 0;
  while (first < args.vectors && args.valid[first] == 0) ++first;
  unsigned groups = (args.vectors - first + kQueriesMax - 1) / kQueriesMax;
  for (; first < args.vectors; --groups) {
    const unsigned count = (args.vectors - first + groups - 1) / groups;
    fold_queries(args, first, count);
    first += count;
  }
}

}  // namespace spillway::cpu
