#include "model/measure_step_threads.h"

#include <algorithm>
#include <functional>

#include "common/check.h"
#include "model/layer_gate.h"

namespace spillway {
namespace {

constexpr uint32_t kRows[] = {1, 8, 64};
constexpr uint32_t kDecodeRowsMax = 8;  // as many are sequences of one row; more are one chunk
constexpr uint32_t kDepth = 512;
constexpr uint32_t kRoundsMin = 3, kRoundsMax = 9;
constexpr Duration kSample = std::chrono::milliseconds(1), kPhase = std::chrono::milliseconds(25),
                   kLayerMax = std::chrono::milliseconds(25);  // longer ones are not tried often enough to be believed

// Lets layers pass for about kSample. They are timed from attention to attention: whole layers, without the embedding.
class Stopwatch final : public LayerGate {
 public:
  void after_append(uint16_t) override {}
  bool before_attention(uint16_t layer) override {
    const TimePoint now = steady_now();
    if (layer == 0) first_ = now;
    last_ = now;
    layers_ = layer;
    return layer == 0 || now - first_ < kSample;
  }
  // Once forward() is over.
  Duration layer() const { return layers_ > 0 ? (last_ - first_) / layers_ : steady_now() - first_; }

 private:
  TimePoint first_, last_;
  uint16_t layers_ = 0;
};

class Measurement {
 public:
  Measurement(Backend& backend, Decoder& decoder, const SlotArena& kv) : backend_(backend), decoder_(decoder), kv_(kv) {
    const uint32_t block_tokens = kv.layout.block_tokens;
    const uint32_t rows = std::min({kRows[2], decoder.rows_max(), decoder.positions_max(), block_tokens});
    depth_ = std::min(kDepth, decoder.positions_max() - rows) / block_tokens * block_tokens;
    for (const uint32_t each : kRows)  // each decode row writes to a block of its own
      if (each <= rows && (each > kDecodeRowsMax || each <= kv.slot_count)) rows_.push_back(each);
    const uint32_t blocks = kv.layout.blocks_for(depth_ + rows);
    table_ = {.data = backend.allocate(sizeof(uint32_t) * kDecodeRowsMax * blocks).data(),  // zeroed: the first slot
              .type = DataType::kU32,
              .shape = {kDecodeRowsMax, blocks, 1}};
    for (uint32_t row = 0; row < std::min(kDecodeRowsMax, kv.slot_count); ++row)
      table_.as<uint32_t>()[row * blocks + depth_ / block_tokens] = row;
  }

  ~Measurement() { backend_.hold_threads_apart(false); }
  Measurement(const Measurement&) = delete;
  Measurement& operator=(const Measurement&) = delete;

  StepThreads run(uint32_t most) {
    std::vector<StepThreads::Phase> phases;
    for (const uint32_t rows : rows_) {
      phases.push_back(measure(rows, thread_counts(most)));
      if (phases.back().tried.size() == 1) break;  // a layer was long, and is longer with more rows
    }
    return StepThreads(std::move(phases));
  }

 private:
  struct Samples {
    uint32_t threads = 1;
    std::vector<Duration> layers;  // ascending
  };

  Duration sample(uint32_t rows, uint32_t threads) {
    decoder_.use_step_threads(StepThreads(threads));
    const std::vector<TokenId> tokens(rows, 0);
    std::vector<TokenSpan> spans;
    if (rows <= kDecodeRowsMax)
      for (uint32_t row = 0; row < rows; ++row)
        spans.push_back({.row_first = row, .row_count = 1, .position_first = depth_, .block_table_row = row});
    else
      spans.push_back({.row_first = 0, .row_count = rows, .position_first = depth_, .block_table_row = 0});
    Stopwatch watch;
    (void)decoder_.forward({.tokens = tokens, .spans = spans, .block_table = table_, .logit_rows = {}}, kv_, watch,
                           Decoder::LastLayer::kAllRows);
    return watch.layer();
  }

  // The first round goes down from all threads and ends where they are clearly too few; at once where a layer is long.
  // Every other round, the first included, holds threads apart: where Linux would put two on one core that shows what
  // they can do, and where another process has one of their cores the rounds between do.
  StepThreads::Phase measure(uint32_t rows, const std::vector<uint32_t>& counts) {
    std::vector<Samples> all;
    Duration best = Duration::max();
    const TimePoint end = steady_now() + kPhase;
    const auto take = [&](Samples& one) {
      const Duration layer = sample(rows, one.threads);
      one.layers.insert(std::ranges::upper_bound(one.layers, layer), layer);
      best = std::min(best, layer);
      return layer;
    };
    backend_.hold_threads_apart(true);
    for (const uint32_t threads : counts) {
      all.push_back({.threads = threads, .layers = {}});
      const auto no_use = [&](Duration layer) { return layer > 2 * best || (all.size() == 1 && layer > kLayerMax); };
      if (!no_use(take(all.back()))) continue;
      const Duration again = take(all.back());  // the first may have been disturbed
      if (no_use(again)) break;
    }
    if (all.size() == 1) return {.rows = rows, .threads = counts.front(), .tried = {{counts.front(), best}}};
    for (uint32_t round = 1; round < kRoundsMin || (round < kRoundsMax && steady_now() < end); ++round) {
      backend_.hold_threads_apart(backend_.threads_pinned() || round % 2 == 0);
      for (Samples& one : all)
        if (one.layers.size() == 1 || one.layers.front() <= best + best / 2) take(one);
    }
    StepThreads::Phase phase{.rows = rows, .threads = 1, .tried = {}};
    for (const Samples& one : all) phase.tried.push_back({one.threads, one.layers[one.layers.size() / 4]});
    phase.threads = rows <= kDecodeRowsMax ? fewest_good_threads(phase.tried) : most_good_threads(phase.tried);
    return phase;
  }

  Backend& backend_;
  Decoder& decoder_;
  const SlotArena& kv_;
  uint32_t depth_ = 0;
  std::vector<uint32_t> rows_;
  TensorView table_;
};

}  // namespace

std::vector<uint32_t> thread_counts(uint32_t most) {
  std::vector<uint32_t> counts{most};
  for (uint32_t power = 1; power < most; power *= 2) {
    counts.push_back(power);
    if (power > 1 && power / 2 * 3 < most) counts.push_back(power / 2 * 3);
  }
  std::ranges::sort(counts, std::greater());
  return counts;
}

StepThreads measure_step_threads(Backend& backend, Decoder& decoder, const SlotArena& kv) {
  CHECK(kv.slot_count > 0);
  if (backend.threads() == 1) return StepThreads(1);
  const StepThreads before = decoder.step_threads();
  StepThreads measured = Measurement(backend, decoder, kv).run(backend.threads());
  decoder.use_step_threads(before);
  backend.reset_counters();
  return measured;
}

}  // namespace spillway
