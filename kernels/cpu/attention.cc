#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "common/check.h"
#include "kernels/bf16.h"
#include "kernels/cpu/attention_plan.h"
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/exp2.h"
#include "kernels/cpu/kv_tile.h"
#include "kernels/cpu/processor.h"

namespace spillway::cpu {
namespace {

constexpr size_t kLineBytes = 64;
constexpr float kNoScore = -std::numeric_limits<float>::infinity();

// The first `count` codes of a fold's K, and of its V, as bf16 in `scratch`.
KeyPlace widened(const KeyPlace& place, const KeyPlace& next, uint32_t count, AttentionScratch& scratch,
                 const IsaLevel& isa) {
  const auto widen = [&](const std::byte* codes, const std::byte* ahead, uint16_t* values) {
    isa.widen_codes({.codes = reinterpret_cast<const int8_t*>(codes),
                     .count = count,
                     .ahead = reinterpret_cast<const int8_t*>(ahead),
                     .values = values});
    return reinterpret_cast<const std::byte*>(values);
  };
  return {.k = widen(place.k, next.k, scratch.k),
          .v = widen(place.v, next.v, scratch.v),
          .k_scales = place.k_scales,
          .v_scales = place.v_scales};
}

// Fetches every `step`-th byte into L2: L1 holds no two folds.
void fetch(const std::byte* bytes, size_t count, size_t step) {
  for (size_t i = 0; i < count; i += step) __builtin_prefetch(bytes + i, 0, 2);
}

// Blocks fold in order from the empty state: kSplitTokens keys, aligned to absolute position. Needs scratch.q. `after`:
// what this thread reads next, most likely; null: nothing.
void compute_split(const Plan& plan, const Tile& tile, uint32_t split, const KeyPlace* after, AttentionScratch& scratch,
                   SplitState state, const IsaLevel& isa) {
  const uint32_t vectors = tile.rows * plan.group;
  std::fill_n(state.m, vectors, kNoScore);
  std::fill_n(state.o, vectors * plan.head_dim, 0.0f);
  std::fill_n(scratch.l_lanes, vectors * kLanes, 0.0f);
  const uint32_t position_first = tile.span->position_first + tile.row_first;
  const uint32_t end = std::min((split + 1) * kSplitTokens, plan.position_last(tile) + 1);
  const auto place_of = [&](uint32_t key) {
    if (key >= end && after != nullptr) return *after;
    return plan.key_place(tile, std::min(key, end - 1) / plan.fold_tokens * plan.fold_tokens);
  };
  // Folds lie scattered, and the way from memory is long, the longer where a page is met first. So the first one is
  // fetched whole, each next one meanwhile (AttentionFold::next_k), and of the one after it every page.
  const size_t piece = size_t{plan.fold_tokens} * plan.head_dim * plan.args.kv.layout.value_bytes();
  const auto fetch_both = [&](const KeyPlace& place, size_t step) {
    fetch(place.k, piece, step);
    fetch(place.v, piece, step);
  };
  fetch_both(place_of(split * kSplitTokens), kLineBytes);
  for (uint32_t key = split * kSplitTokens; key < end; key += plan.fold_tokens) {
    for (uint32_t v = 0; v < vectors; ++v) {
      const uint32_t keys_seen = position_first + v / plan.group + 1;
      scratch.valid[v] = static_cast<uint8_t>(keys_seen <= key ? 0 : std::min(keys_seen - key, plan.fold_tokens));
    }
    KeyPlace place = place_of(key), next_place = place_of(key + plan.fold_tokens);
    fetch_both(place_of(key + 2 * plan.fold_tokens), kPageBytes);
    if (plan.args.kv.layout.dtype == KvDtype::kInt8) {
      const uint32_t tiles = (scratch.valid[vectors - 1] + kTileTokens - 1) / kTileTokens;  // the last vector sees most
      next_place = place = widened(place, next_place, tiles * kTileTokens * plan.head_dim, scratch, isa);
    }
    isa.attention_fold({.q = scratch.q,
                        .vectors = vectors,
                        .head_dim = plan.head_dim,
                        .tokens = plan.fold_tokens,
                        .k = reinterpret_cast<const uint16_t*>(place.k),
                        .v = reinterpret_cast<const uint16_t*>(place.v),
                        .next_k = reinterpret_cast<const uint16_t*>(next_place.k),
                        .next_v = reinterpret_cast<const uint16_t*>(next_place.v),
                        .k_scales = place.k_scales,
                        .v_scales = place.v_scales,
                        .valid = scratch.valid,
                        .scale_log2 = plan.args.scale * kLog2E,
                        .m = state.m,
                        .l = scratch.l_lanes,
                        .o = state.o});
  }
  for (uint32_t v = 0; v < vectors; ++v) {
    float* lanes = scratch.l_lanes + size_t{v} * kLanes;
    for (uint32_t width = kLanes / 2; width > 0; width /= 2) {
      for (uint32_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
    }
    state.l[v] = lanes[0];
  }
}

// total := total merged with the next split. An empty part changes nothing.
void merge(SplitState total, SplitState part, uint32_t vectors, uint32_t head_dim) {
  for (uint32_t v = 0; v < vectors; ++v, total.o += head_dim, part.o += head_dim) {
    if (part.m[v] == kNoScore && part.l[v] == 0.0f) continue;
    const float m = std::max(total.m[v], part.m[v]);
    const float a = exp2_scalar(total.m[v] - m), b = exp2_scalar(part.m[v] - m);
    total.m[v] = m;
    total.l[v] = total.l[v] * a + part.l[v] * b;
    for (uint32_t dim = 0; dim < head_dim; ++dim) total.o[dim] = total.o[dim] * a + part.o[dim] * b;
  }
}

void load_q(const Plan& plan, const Tile& tile, uint16_t* q) {
  const size_t count = size_t{plan.group} * plan.head_dim;
  for (uint32_t row = 0; row < tile.rows; ++row, q += count) {
    std::memcpy(q, plan.args.q.as<uint16_t>() + plan.row_index(tile, row), count * sizeof(uint16_t));
  }
}

void store_out(const Plan& plan, const Tile& tile, SplitState total) {
  for (uint32_t v = 0; v < tile.rows * plan.group; ++v, total.o += plan.head_dim) {
    uint16_t* out =
        plan.args.out.as<uint16_t>() + plan.row_index(tile, v / plan.group) + size_t{v % plan.group} * plan.head_dim;
    for (uint32_t dim = 0; dim < plan.head_dim; ++dim) out[dim] = bf16_from_f32(total.o[dim] / total.l[v]);
  }
}

// All splits of a tile by one thread.
void compute_tile(const Plan& plan, const Tile& tile, const KeyPlace* after, AttentionScratch& scratch,
                  const IsaLevel& isa) {
  load_q(plan, tile, scratch.q);
  const uint32_t splits = plan.split_count(tile);
  for (uint32_t split = 0; split < splits; ++split) {
    const bool last = split + 1 == splits;
    const KeyPlace next = last ? KeyPlace{} : plan.key_place(tile, (split + 1) * kSplitTokens);
    compute_split(plan, tile, split, last ? after : &next, scratch, split == 0 ? scratch.total() : scratch.part(), isa);
    if (split == 0) continue;
    merge(scratch.total(), scratch.part(), tile.rows * plan.group, plan.head_dim);
  }
  store_out(plan, tile, scratch.total());
}

// Tiles of more splits than this are shared among threads, so that a long one is not what all wait for. At most
// SharedTiles::tiles_max are: their splits add up to no more than all.
uint32_t share_grain(const Plan& plan, const SharedTiles& memory) {
  uint64_t splits = 0;
  plan.for_each_tile([&](const Tile& tile) { splits += plan.split_count(tile); });
  return static_cast<uint32_t>(std::max<uint64_t>(1, splits / memory.tiles_max));
}

// The splits of the shared tiles, a task each, in rounds of as many as the memory for their states holds. Splits merge
// in ascending order whoever computed them, so no bit depends on the rounds or on what is shared.
class Rounds {
 public:
  Rounds(const Plan& plan, uint32_t grain, SharedTiles& memory) : plan_(plan), memory_(memory) {
    if (grain == UINT32_MAX) return;
    plan.for_each_tile([&](const Tile& tile) {
      if (plan.split_count(tile) <= grain) return;
      CHECK(tile_count_ < memory.tiles_max);
      SharedTile& shared = memory.tiles[tile_count_++];
      shared.tile = tile;
      shared.split_count = plan.split_count(tile);
      shared.split_first = shared.round_splits = 0;
    });
  }

  bool last() const { return end_ == tile_count_ && (end_ == 0 || whole(memory_.tiles[end_ - 1])); }

  // Prepares the next round and returns its task count; 0 where nothing is shared. Only the last tile of a round may be
  // cut off, and only if it is the first as well: then it goes on in the next.
  uint32_t next() {
    first_ = end_ > 0 && !whole(memory_.tiles[end_ - 1]) ? end_ - 1 : end_;
    uint32_t tasks = 0;
    size_t floats = 0;
    for (end_ = first_; end_ < tile_count_; ++end_) {
      SharedTile& shared = memory_.tiles[end_];
      const size_t room = (memory_.states.size() - floats) / state_floats(shared.tile);
      const uint32_t left = shared.split_count - (shared.split_first + shared.round_splits);
      if (tasks > 0 && left > room) break;
      shared.split_first += shared.round_splits;
      shared.round_splits = static_cast<uint32_t>(std::min<size_t>(left, room));
      shared.round_first = tasks;
      shared.states = &memory_.states[floats];
      shared.splits_left.store(shared.round_splits, std::memory_order_relaxed);
      tasks += shared.round_splits;
      floats += shared.round_splits * state_floats(shared.tile);
      if (!whole(shared)) return ++end_, tasks;
    }
    return tasks;
  }

  KeyPlace place(uint32_t task) const {
    const SharedTile& shared = tile_of(task);
    return plan_.key_place(shared.tile, (shared.split_first + task - shared.round_first) * kSplitTokens);
  }

  // Any thread, each task < next() once.
  void compute(uint32_t task, const KeyPlace* after, AttentionScratch& scratch, const IsaLevel& isa) {
    SharedTile& shared = tile_of(task);
    const uint32_t split = task - shared.round_first;
    load_q(plan_, shared.tile, scratch.q);
    compute_split(plan_, shared.tile, shared.split_first + split, after, scratch, state(shared, split), isa);
    if (shared.splits_left.fetch_sub(1, std::memory_order_acq_rel) == 1) merge_round(shared);
  }

 private:
  SharedTile& tile_of(uint32_t task) const {
    return *(std::upper_bound(memory_.tiles.get() + first_, memory_.tiles.get() + end_, task,
                              [](uint32_t value, const SharedTile& tile) { return value < tile.round_first; }) -
             1);
  }
  static bool whole(const SharedTile& shared) { return shared.split_first + shared.round_splits == shared.split_count; }
  size_t state_floats(const Tile& tile) const {  // whole cache lines: each is another thread's
    return (size_t{tile.rows} * plan_.group * (plan_.head_dim + 2) + 15) / 16 * 16;
  }
  SplitState state_at(const Tile& tile, float* floats) const {
    const uint32_t vectors = tile.rows * plan_.group;
    return {floats, floats + vectors, floats + 2 * vectors};
  }
  SplitState state(const SharedTile& shared, uint32_t split) const {
    return state_at(shared.tile, shared.states + split * state_floats(shared.tile));
  }
  void merge_round(SharedTile& shared) const {
    const SplitState carried = state_at(shared.tile, memory_.carried.data());
    const bool begins = shared.split_first == 0;
    const SplitState total = begins ? state(shared, 0) : carried;
    for (uint32_t split = begins ? 1 : 0; split < shared.round_splits; ++split)
      merge(total, state(shared, split), shared.tile.rows * plan_.group, plan_.head_dim);
    if (whole(shared)) {
      store_out(plan_, shared.tile, total);
    } else if (begins) {
      std::copy_n(shared.states, state_floats(shared.tile), memory_.carried.data());
    }
  }

  const Plan& plan_;
  SharedTiles& memory_;
  uint32_t tile_count_ = 0;
  uint32_t first_ = 0, end_ = 0;  // tiles of the round
};

void check_shapes(const AttentionArgs& args, Precision precision) {
  const KvLayout& layout = args.kv.layout;
  CHECK(layout.dtype == precision.kv);
  CHECK(args.q.type == DataType::kBf16 && args.out.type == DataType::kBf16 && args.q.shape == args.out.shape);
  CHECK(layout.kv_heads > 0 && args.q.shape[1] % layout.kv_heads == 0 &&
        args.q.shape[1] / layout.kv_heads <= kHeadsPerKvHeadMax);
  CHECK(args.q.shape[2] == layout.head_dim && layout.head_dim % 2 == 0 && layout.head_dim <= kHeadDimMax);
  CHECK(layout.block_tokens % kTileTokens == 0 && kSplitTokens % layout.block_tokens == 0);
  for (const TokenSpan& span : args.spans) {
    CHECK(span.row_count > 0 && span.row_first + span.row_count <= args.q.shape[0]);
    CHECK(span.block_table_row < args.block_table.shape[0]);
    CHECK(layout.blocks_for(span.position_first + span.row_count) <= args.block_table.shape[1]);
  }
}

void count_attention(const Plan& plan, OpCounters& counters) {
  for (const TokenSpan& span : plan.args.spans) {
    const uint64_t rows = span.row_count, end = uint64_t{span.position_first} + rows;
    const uint64_t keys = rows * span.position_first + rows * (rows + 1) / 2;
    counters.attention_flops += 4 * plan.head_dim * plan.heads * keys;
    counters.kv_bytes += end * plan.args.kv.layout.token_bytes();
  }
}

}  // namespace

// Every sum is over ascending dims, or ascending keys, of plain products and sums; keys are the inner loop of the
// scores only so that compilers may use vectors.
void attention_fold_scalar(const AttentionFold& args) {
  const uint32_t head_dim = args.head_dim;
  const KvTile tile{args.tokens, head_dim};
  for (uint32_t v = 0; v < args.vectors; ++v) {
    const uint32_t valid = args.valid[v];
    if (valid == 0) continue;
    const uint16_t* q = args.q + size_t{v} * head_dim;
    float* l = args.l + size_t{v} * kLanes;
    float* o = args.o + size_t{v} * head_dim;
    float scores[kFoldTokensMax] = {};
    for (uint32_t first = 0; first < valid; first += kTileTokens) {
      for (uint32_t dim = 0; dim < head_dim; ++dim) {
        const uint16_t* k = args.k + tile.k_index(0, first, dim);
        const float value = f32_from_bf16(q[dim]);
        for (uint32_t i = 0; i < kTileTokens; ++i) scores[first + i] += value * f32_from_bf16(k[size_t{i} * 2]);
      }
    }
    float m = args.m[v];
    for (uint32_t token = 0; token < valid; ++token) {
      scores[token] *= args.scale_log2;
      if (args.k_scales != nullptr) scores[token] *= args.k_scales[token];
      m = std::max(m, scores[token]);
    }
    const float alpha = exp2_scalar(args.m[v] - m);
    args.m[v] = m;
    for (uint32_t lane = 0; lane < kLanes; ++lane) l[lane] *= alpha;
    for (uint32_t dim = 0; dim < head_dim; ++dim) o[dim] *= alpha;
    for (uint32_t token = 0; token < valid; ++token) {
      const float p = exp2_scalar(scores[token] - m);
      l[token % kLanes] += p;
      const float weight = args.v_scales == nullptr ? p : p * args.v_scales[token];
      const uint16_t* row = args.v + tile.v_index(0, token, 0);
      for (uint32_t dim = 0; dim < head_dim; ++dim) o[dim] += weight * f32_from_bf16(row[size_t{dim} * 2]);
    }
  }
}

void widen_codes_scalar(const CodesToWiden& args) {
  for (uint32_t i = 0; i < args.count; ++i) args.values[i] = bf16_from_f32(static_cast<float>(args.codes[i]));
}

void CpuBackend::attention(const AttentionArgs& args) {
  check_shapes(args, precision_);
  const Plan plan(args);
  count_attention(plan, counters_);
  const FlushDenormals flush;
  const uint32_t tiles = plan.tile_count();
  const uint32_t grain = pool_.thread_count() > 1 ? share_grain(plan, shared_tiles_) : UINT32_MAX;
  Rounds rounds(plan, grain, shared_tiles_);
  do {
    const uint32_t shared = rounds.next(), tasks = shared + (rounds.last() ? tiles : 0);
    // Late positions see most keys: they start first. Shared tiles have had their tasks.
    const auto tile_of = [&](uint32_t task) -> std::optional<Tile> {
      const Tile tile = plan.tile(tiles - 1 - (task - shared));
      return plan.split_count(tile) <= grain ? std::optional(tile) : std::nullopt;
    };
    const auto place_of = [&](uint32_t task) -> std::optional<KeyPlace> {
      if (task >= tasks) return std::nullopt;
      if (task < shared) return rounds.place(task);
      const std::optional<Tile> tile = tile_of(task);
      return tile ? std::optional(plan.key_place(*tile, 0)) : std::nullopt;
    };
    pool_.parallel_for(tasks, [&](uint32_t task, uint32_t thread) {
      const std::optional<Tile> tile = task < shared ? std::nullopt : tile_of(task);
      if (task >= shared && !tile) return;
      // Tasks are of about one length: while threads take turns, this one's next is as many further on as there are.
      const std::optional<KeyPlace> next = place_of(task + pool_.used_threads());
      const KeyPlace* const after = next ? &*next : nullptr;
      if (tile) {
        compute_tile(plan, *tile, after, scratch_[thread], isa_);
      } else {
        rounds.compute(task, after, scratch_[thread], isa_);
      }
    });
  } while (!rounds.last());
}

}  // namespace spillway::cpu
