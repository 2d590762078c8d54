#include "kernels/cpu/avx512.h"
#include "kernels/cpu/isa_kernels.h"

// Scores: one vdpbf16ps chain per (query, key) over ascending pairs of dims. Values: one chain per (query, dim) over
// ascending pairs of keys, starting from the rescaled o; p is rounded to bf16, and l sums the rounded p; for int8 p
// times the scale of V is rounded, and l sums p as it is. A key that a query does not see never enters a chain, so
// nothing depends on which queries share a tile.
namespace spillway::cpu {
namespace {

constexpr int kQueriesMax = 6;

// scores[m][64] = q . k for M queries and T tiles of 16 keys.
template <int M, int T>
SPILLWAY_AVX512 void score(const AttentionFold& args, const unsigned short* q, float (*scores)[kFoldTokensMax]) {
  const unsigned short* k = args.k;
  const size_t tile_stride = size_t{16} * args.head_dim;
  __m512 sums[M][T];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) sums[m][t] = _mm512_setzero_ps();
  }
  const unsigned short* ahead = args.next_k;
  for (unsigned dim = 0; dim < args.head_dim; dim += 2, k += 32, ahead += T * 32) {
    __m512bh keys[T];
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) _mm_prefetch(reinterpret_cast<const char*>(ahead + t * 32), _MM_HINT_T1);
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) keys[t] = (__m512bh)_mm512_loadu_si512(k + t * tile_stride);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const __m512bh x = broadcast_pair(q + m * args.head_dim + dim);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) sums[m][t] = _mm512_dpbf16_ps(sums[m][t], x, keys[t]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) _mm512_storeu_ps(scores[m] + t * 16, sums[m][t]);
  }
}

SPILLWAY_AVX512_INLINE __mmask16 seen_lanes(unsigned valid, unsigned tile) {
  return valid >= tile * 16 + 16 ? 0xffff
         : valid <= tile * 16    ? 0
                                 : static_cast<__mmask16>((1u << (valid - tile * 16)) - 1);
}

// Scales the scores of one query, those of unseen keys to -infinity, and returns the highest that it has met.
template <int T>
SPILLWAY_AVX512_INLINE float scale_scores(const AttentionFold& args, unsigned vector, float* scores) {
  const __m512 nothing = _mm512_set1_ps(-__builtin_inff());
  __m512 highest = nothing;
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t) {
    __m512 s = _mm512_mul_ps(_mm512_loadu_ps(scores + t * 16), _mm512_set1_ps(args.scale_log2));
    if (args.k_scales != nullptr) s = _mm512_mul_ps(s, _mm512_loadu_ps(args.k_scales + t * 16));
    s = _mm512_mask_blend_ps(seen_lanes(args.valid[vector], static_cast<unsigned>(t)), nothing, s);
    _mm512_storeu_ps(scores + t * 16, s);
    highest = _mm512_max_ps(highest, s);
  }
  const float top = _mm512_reduce_max_ps(highest), before = args.m[vector];
  return top > before ? top : before;
}

// Writes p of one query, for int8 times the scale of V (0 where not seen), and adds it to l.
template <int T>
SPILLWAY_AVX512_INLINE void add_weights(const AttentionFold& args, unsigned vector, float m, float alpha,
                                        const float* scores, unsigned short* p) {
  float* const lanes = args.l + size_t{vector} * kLanes;
  __m512 l = _mm512_mul_ps(_mm512_loadu_ps(lanes), _mm512_set1_ps(alpha));
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t) {
    const __m512 exact = exp2_avx512(_mm512_sub_ps(_mm512_loadu_ps(scores + t * 16), _mm512_set1_ps(m)));
    if (args.v_scales != nullptr) {
      const __mmask16 seen = seen_lanes(args.valid[vector], static_cast<unsigned>(t));
      const __m512 scales = _mm512_maskz_loadu_ps(seen, args.v_scales + t * 16);
      _mm256_storeu_si256((__m256i*)(p + t * 16), (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(exact, scales)));
      l = _mm512_add_ps(l, exact);
    } else {
      const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(exact);
      _mm256_storeu_si256((__m256i*)(p + t * 16), rounded);
      l = _mm512_add_ps(l, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16)));
    }
  }
  _mm512_storeu_ps(lanes, l);
}

// Updates m and l of `count` queries from T tiles of scores; gives their p, and alpha: what o is to be scaled by. Query
// by query each step would wait for the one before it.
template <int T>
SPILLWAY_AVX512 void soften(const AttentionFold& args, unsigned first, unsigned count, float (*scores)[kFoldTokensMax],
                            unsigned short (*p)[kFoldTokensMax], float (&alpha)[16]) {
  float m[16] = {}, before[16] = {};
  for (unsigned i = 0; i < count; ++i) {
    before[i] = args.m[first + i];
    m[i] = scale_scores<T>(args, first + i, scores[i]);
    args.m[first + i] = m[i];
  }
  _mm512_storeu_ps(alpha, exp2_avx512(_mm512_sub_ps(_mm512_loadu_ps(before), _mm512_loadu_ps(m))));
  for (unsigned i = 0; i < count; ++i) add_weights<T>(args, first + i, m[i], alpha[i], scores[i], p[i]);
}

// o[m] = o[m] * alpha[m] + sum over `valid` keys p v, for M queries and V vectors of 16 dims from `dim` on.
template <int M, int V>
SPILLWAY_AVX512 void add_values(const AttentionFold& args, unsigned vector, unsigned dim, const float* alpha,
                                const unsigned short (*p)[kFoldTokensMax]) {
  const unsigned valid = args.valid[vector];
  const unsigned short* v = args.v + dim * 2;
  float* o = args.o + size_t{vector} * args.head_dim + dim;
  __mmask16 masks[V];
  __m512 sums[M][V];
#pragma GCC unroll 4
  for (int c = 0; c < V; ++c) masks[c] = seen_lanes(args.head_dim - dim, c);
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int c = 0; c < V; ++c) {
      const __m512 old = _mm512_maskz_loadu_ps(masks[c], o + m * args.head_dim + c * 16);
      sums[m][c] = _mm512_mul_ps(old, _mm512_set1_ps(alpha[m]));
    }
  }
  const unsigned short* ahead = args.next_v + size_t{dim} * args.tokens;
  for (unsigned key = 0; key < valid; key += 2, v += 2 * args.head_dim, ahead += V * 32) {
    // An odd last key: its partner's value is not seen, so it must not meet even a zero p.
    const __m512i seen = _mm512_set1_epi32(key + 1 < valid ? -1 : 0xffff);
    __m512bh values[V];
#pragma GCC unroll 4
    for (int c = 0; c < V; ++c) {
      _mm_prefetch(reinterpret_cast<const char*>(ahead + c * 32), _MM_HINT_T1);
      values[c] = (__m512bh)_mm512_and_si512(seen, _mm512_maskz_loadu_epi32(masks[c], v + c * 32));
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const __m512bh x = broadcast_pair(p[m] + key);
#pragma GCC unroll 4
      for (int c = 0; c < V; ++c) sums[m][c] = _mm512_dpbf16_ps(sums[m][c], x, values[c]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int c = 0; c < V; ++c) _mm512_mask_storeu_ps(o + m * args.head_dim + c * 16, masks[c], sums[m][c]);
  }
}

template <int M>
SPILLWAY_AVX512 void score_tiles(const AttentionFold& args, const unsigned short* q, unsigned tiles,
                                 float (*scores)[kFoldTokensMax]) {
  if (tiles == 1) return score<M, 1>(args, q, scores);
  if (tiles == 2) return score<M, 2>(args, q, scores);
  return score<M, 4>(args, q, scores);  // 3 as well: the fold has 4
}

template <int M>
SPILLWAY_AVX512 void add_all_values(const AttentionFold& args, unsigned vector, const float* alpha,
                                    const unsigned short (*p)[kFoldTokensMax]) {
  for (unsigned dim = 0; dim < args.head_dim; dim += 64) {
    if (args.head_dim - dim > 32) {
      add_values<M, 4>(args, vector, dim, alpha, p);
    } else {
      add_values<M, 2>(args, vector, dim, alpha, p);
    }
  }
}

SPILLWAY_AVX512 void soften_tiles(const AttentionFold& args, unsigned first, unsigned count, unsigned tiles,
                                  float (*scores)[kFoldTokensMax], unsigned short (*p)[kFoldTokensMax],
                                  float (&alpha)[16]) {
  if (tiles == 1) return soften<1>(args, first, count, scores, p, alpha);
  if (tiles == 2) return soften<2>(args, first, count, scores, p, alpha);
  return soften<4>(args, first, count, scores, p, alpha);
}

using ScoreTiles = void (*)(const AttentionFold&, const unsigned short*, unsigned, float (*)[kFoldTokensMax]);
using AddAllValues = void (*)(const AttentionFold&, unsigned, const float*, const unsigned short (*)[kFoldTokensMax]);
constexpr ScoreTiles kScoreTiles[] = {nullptr,        score_tiles<1>, score_tiles<2>, score_tiles<3>,
                                      score_tiles<4>, score_tiles<5>, score_tiles<6>};
constexpr AddAllValues kAddAllValues[] = {nullptr,           add_all_values<1>, add_all_values<2>, add_all_values<3>,
                                          add_all_values<4>, add_all_values<5>, add_all_values<6>};

// `count` queries from `first` on, all of which see at least one key.
SPILLWAY_AVX512 void fold_queries(const AttentionFold& args, unsigned first, unsigned count) {
  alignas(64) float scores[kQueriesMax][kFoldTokensMax];
  alignas(64) unsigned short p[kQueriesMax][kFoldTokensMax];
  float alpha[16];
  const unsigned tiles = (args.valid[first + count - 1] + 15u) / 16;  // the last query sees most
  kScoreTiles[count](args, args.q + size_t{first} * args.head_dim, tiles, scores);
  soften_tiles(args, first, count, tiles, scores, p, alpha);
  for (unsigned i = 0; i < count;) {  // queries that see the same keys share the loads of v
    unsigned end = i + 1;
    while (end < count && args.valid[first + end] == args.valid[first + i]) ++end;
    kAddAllValues[end - i](args, first + i, alpha + i, p + i);
    i = end;
  }
}

}  // namespace

SPILLWAY_AVX512 void widen_codes_avx512(const CodesToWiden& args) {
  constexpr unsigned kLine = 64;
  for (unsigned i = 0; i < args.count; i += 32) {
    if (i % kLine == 0) _mm_prefetch(reinterpret_cast<const char*>(args.ahead + i), _MM_HINT_T1);
    const __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(args.codes + i))));
    const __m512 high =
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(args.codes + i + 16))));
    _mm512_storeu_si512(args.values + i, (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
}

void attention_fold_avx512(const AttentionFold& args) {
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
