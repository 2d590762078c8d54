#include "kernels/cpu/gemm_avx2.h"

namespace spillway::cpu {
namespace {

constexpr unsigned kTileRows = 6;  // 6 x 2 sums, the panel's vectors and a broadcast fill the 16 registers
constexpr unsigned kChunk = 128;   // depth that is worked on at once: its values and a tile's rows of `a` stay in L1
constexpr unsigned kStripe = 16;   // columns of a tile
constexpr unsigned kAhead = 8192;  // bytes that the panel is fetched ahead of use

struct Scratch {
  float a[kPanelRowsMax][kChunk];
  float values[kChunk][kStripe];  // of one stripe
  float sums[kPanelRowsMax][kPanelColumns];
};
static_assert(sizeof(Scratch) <= kPanelScratchBytes);

// Value i of each of 8 words, i a constant where this is inlined: of codes, a byte with zeros above it.
template <PanelFormat Format>
SPILLWAY_AVX2_INLINE __m256 value_of(__m256i words, int i, const Scales& scales) {
  constexpr PanelLayout kLayout = layout_of(Format);
  if constexpr (Format == PanelFormat::kBf16) {
    return i == 0 ? even_halves(words) : odd_halves(words);
  } else {
    if constexpr (kLayout.value_bits == 4)
      words = _mm256_and_si256(i < 4 ? words : _mm256_srli_epi32(words, 4), _mm256_set1_epi8(15));
    const int zeros = static_cast<int>(0x80808000u), byte = i % 4;
    const __m128i of_four = _mm_setr_epi32(zeros | byte, zeros | (byte + 4), zeros | (byte + 8), zeros | (byte + 12));
    const __m256i codes = _mm256_shuffle_epi8(words, _mm256_broadcastsi128_si256(of_four));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(codes), scales.d, scales.m);
  }
}

// Up to so many rows each tile unpacks weights for itself, in registers; more share what is unpacked into scratch.
template <PanelFormat Format>
constexpr unsigned kFewRows = Format == PanelFormat::kBf16 ? 2 * kTileRows : 3;

// A run of words[count][64] that share their scales: a block, or all of a chunk of bf16 pairs.
template <PanelFormat Format>
struct Runs {
  static constexpr PanelLayout kLayout = layout_of(Format);
  static constexpr bool kNarrow = Format != PanelFormat::kBf16;
  static constexpr unsigned kValues = kNarrow ? kLayout.block_values : kChunk;
  static constexpr size_t kBytes = kValues / kLayout.block_values * kLayout.block_bytes();
  // Words of a run of so many values.
  static unsigned words(unsigned values) { return (values + kLayout.word_values() - 1) / kLayout.word_values(); }
};

// Every sum is one chain of fused multiply-adds over ascending k, whatever path it takes.

// sums[r][v] += a[r][0] * value 0 of the words at line[v], and so on.
template <PanelFormat Format, int Rows, int Vectors>
SPILLWAY_AVX2_INLINE void add_words(const __m256i* line, const float* a, const Scales (&scales)[Vectors],
                                    __m256 (&sums)[Rows][Vectors]) {
  constexpr int kWordValues = static_cast<int>(layout_of(Format).word_values());
#pragma GCC unroll 8
  for (int i = 0; i < kWordValues; ++i) {
    __m256 values[Vectors];
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) values[v] = value_of<Format>(_mm256_loadu_si256(line + v), i, scales[v]);
#pragma GCC unroll 6
    for (int r = 0; r < Rows; ++r) {
      const __m256 x = _mm256_broadcast_ss(a + r * static_cast<int>(kChunk) + i);
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) sums[r][v] = _mm256_fmadd_ps(x, values[v], sums[r][v]);
    }
  }
}

// Adds the products of a run and some rows of `a` to sums[r][8 * Vectors], kPanelColumns apart.
template <PanelFormat Format, int Rows, int Vectors>
SPILLWAY_AVX2_INLINE void add_run(const char* run, unsigned column, unsigned words, const float* a, float* sums_out) {
  constexpr int kRow = static_cast<int>(kPanelColumns);
  __m256 sums[Rows][Vectors];
  Scales scales[Vectors];
  const char* const after_words = run + size_t{words} * kPanelColumns * 4;
#pragma GCC unroll 8
  for (int v = 0; v < Vectors; ++v) {
    scales[v] = load_scales<Format>(after_words, static_cast<int>(column / 8) + v);
#pragma GCC unroll 6
    for (int r = 0; r < Rows; ++r) sums[r][v] = _mm256_load_ps(sums_out + r * kRow + 8 * v);
  }
  const auto* line = reinterpret_cast<const __m256i*>(run + 4 * column);
  for (unsigned word = 0; word < words; ++word, line += kPanelColumns / 8, a += layout_of(Format).word_values()) {
#pragma GCC unroll 4
    for (int i = 0; i < Vectors / 2; ++i)
      _mm_prefetch(reinterpret_cast<const char*>(line + 2 * i) + kAhead, _MM_HINT_T0);
    add_words<Format, Rows, Vectors>(line, a, scales, sums);
  }
#pragma GCC unroll 8
  for (int v = 0; v < Vectors; ++v) {
#pragma GCC unroll 6
    for (int r = 0; r < Rows; ++r) _mm256_store_ps(sums_out + r * kRow + 8 * v, sums[r][v]);
  }
}

// Rows of `a` from `row`, and all columns of a chunk.
template <PanelFormat Format, int Rows>
SPILLWAY_AVX2 void add_tile(const char* chunk, unsigned row, unsigned depth, Scratch& scratch) {
  constexpr int kVectors = Rows > 2 ? 2 : Format == PanelFormat::kBf16 ? 8 : 4;  // as many as stay in registers
  using Run = Runs<Format>;
  for (unsigned k = 0; k < depth; k += Run::kValues, chunk += Run::kBytes) {
    const unsigned left = depth - k, words = Run::words(left < Run::kValues ? left : Run::kValues);
    for (unsigned column = 0; column < kPanelColumns; column += 8 * kVectors)
      add_run<Format, Rows, kVectors>(chunk, column, words, scratch.a[row] + k, scratch.sums[row] + column);
  }
}

template <PanelFormat Format>
void add_rows(const char* chunk, unsigned row, unsigned height, unsigned depth, Scratch& scratch) {
  switch (height) {
    case 1: return add_tile<Format, 1>(chunk, row, depth, scratch);
    case 2: return add_tile<Format, 2>(chunk, row, depth, scratch);
    case 3: return add_tile<Format, 3>(chunk, row, depth, scratch);
  }
  if constexpr (Format == PanelFormat::kBf16) {  // of others so many rows go through scratch
    switch (height) {
      case 4: return add_tile<Format, 4>(chunk, row, depth, scratch);
      case 5: return add_tile<Format, 5>(chunk, row, depth, scratch);
      case 6: return add_tile<Format, 6>(chunk, row, depth, scratch);
    }
  }
}

// values[k][column of the stripe] of a chunk.
template <PanelFormat Format>
SPILLWAY_AVX2 void unpack(const char* chunk, unsigned stripe, unsigned depth, Scratch& scratch) {
  using Run = Runs<Format>;
  constexpr int kWordValues = static_cast<int>(layout_of(Format).word_values());
  for (unsigned first = 0; first < depth; first += Run::kValues, chunk += Run::kBytes) {
    const unsigned left = depth - first, words = Run::words(left < Run::kValues ? left : Run::kValues);
    const char* const after_words = chunk + size_t{words} * kPanelColumns * 4;
    const Scales low = load_scales<Format>(after_words, static_cast<int>(2 * stripe));
    const Scales high = load_scales<Format>(after_words, static_cast<int>(2 * stripe + 1));
    const char* line = chunk + size_t{stripe} * kStripe * 4;
    float* out = scratch.values[first];
    for (unsigned word = 0; word < words; ++word, line += kPanelColumns * 4, out += kWordValues * 16) {
      _mm_prefetch(line + kAhead, _MM_HINT_T0);
      const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line));
      const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line) + 1);
#pragma GCC unroll 8
      for (int i = 0; i < kWordValues; ++i) {
        _mm256_store_ps(out + 16 * i, value_of<Format>(a, i, low));
        _mm256_store_ps(out + 16 * i + 8, value_of<Format>(b, i, high));
      }
    }
  }
}

// Adds the products of Rows rows of `a` and a stripe to sums[r][16], kPanelColumns apart.
template <int Rows>
SPILLWAY_AVX2 void multiply(const float (*a)[kChunk], const float (*values)[kStripe], unsigned depth,
                            float (*sums_out)[kPanelColumns], unsigned column) {
  __m256 sums[Rows][2];
#pragma GCC unroll 6
  for (int r = 0; r < Rows; ++r) {
    sums[r][0] = _mm256_load_ps(sums_out[r] + column);
    sums[r][1] = _mm256_load_ps(sums_out[r] + column + 8);
  }
  for (unsigned k = 0; k < depth; ++k) {
    const __m256 low = _mm256_load_ps(values[k]), high = _mm256_load_ps(values[k] + 8);
#pragma GCC unroll 6
    for (int r = 0; r < Rows; ++r) {
      const __m256 x = _mm256_broadcast_ss(a[r] + k);
      sums[r][0] = _mm256_fmadd_ps(x, low, sums[r][0]);
      sums[r][1] = _mm256_fmadd_ps(x, high, sums[r][1]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < Rows; ++r) {
    _mm256_store_ps(sums_out[r] + column, sums[r][0]);
    _mm256_store_ps(sums_out[r] + column + 8, sums[r][1]);
  }
}

void multiply_rows(unsigned rows, const float (*a)[kChunk], const float (*values)[kStripe], unsigned depth,
                   float (*sums)[kPanelColumns], unsigned column) {
  switch (rows) {
    case 3: return multiply<3>(a, values, depth, sums, column);
    case 4: return multiply<4>(a, values, depth, sums, column);
    case 5: return multiply<5>(a, values, depth, sums, column);
    case 6: return multiply<6>(a, values, depth, sums, column);
  }
}

// Calls tile(row, height) for tiles of about equal height: low ones are slow.
template <class Tile>
void for_each_tile(unsigned rows, const Tile& tile) {
  unsigned tiles = (rows + kTileRows - 1) / kTileRows;
  for (unsigned row = 0; row < rows; --tiles) {
    const unsigned height = (rows - row + tiles - 1) / tiles;
    tile(row, height);
    row += height;
  }
}

template <PanelFormat Format>
void add_chunk(const char* chunk, unsigned rows, unsigned depth, Scratch& scratch) {
  if (rows <= kFewRows<Format>) {
    return for_each_tile(rows,
                         [&](unsigned row, unsigned height) { add_rows<Format>(chunk, row, height, depth, scratch); });
  }
  for (unsigned stripe = 0; stripe < kPanelColumns / kStripe; ++stripe) {
    unpack<Format>(chunk, stripe, depth, scratch);
    for_each_tile(rows, [&](unsigned row, unsigned height) {  // of 3 rows at least
      multiply_rows(height, scratch.a + row, scratch.values, depth, scratch.sums + row, stripe * kStripe);
    });
  }
}

using AddChunk = void (*)(const char* chunk, unsigned rows, unsigned depth, Scratch& scratch);
AddChunk add_chunk_of(PanelFormat format) {
  switch (format) {
    case PanelFormat::kBf16: return add_chunk<PanelFormat::kBf16>;
    case PanelFormat::kCodes4F16: return add_chunk<PanelFormat::kCodes4F16>;
    case PanelFormat::kCodes8F16: return add_chunk<PanelFormat::kCodes8F16>;
    case PanelFormat::kCodes4F32: return add_chunk<PanelFormat::kCodes4F32>;
    case PanelFormat::kCodes8F32: return add_chunk<PanelFormat::kCodes8F32>;
    case PanelFormat::kCodes8F32By16: return add_chunk<PanelFormat::kCodes8F32By16>;
  }
  return nullptr;
}

}  // namespace

SPILLWAY_AVX2 void gemm_panel_avx2(const GemmPanel& args) {
  Scratch& scratch = *static_cast<Scratch*>(args.scratch);
  const AddChunk add = add_chunk_of(args.format);
  const size_t chunk_bytes = layout_of(args.format).panel_bytes(kChunk);
  const auto* chunk = static_cast<const char*>(args.panel);
  __builtin_memset(scratch.sums, 0, args.rows * sizeof(scratch.sums[0]));
  for (unsigned first = 0; first < args.depth; first += kChunk, chunk += chunk_bytes) {
    const unsigned left = args.depth - first, depth = left < kChunk ? left : kChunk;
    for (unsigned r = 0; r < args.rows; ++r) {
      widen(args.a + r * args.a_stride + first, depth, scratch.a[r]);
      if (depth % 2 != 0) scratch.a[r][depth] = 0;  // the panel's last pair is padded with zero as well
    }
    add(chunk, args.rows, depth, scratch);
  }
  for (unsigned r = 0; r < args.rows; ++r) store_row(args, r, scratch.sums[r]);
}

}  // namespace spillway::cpu
