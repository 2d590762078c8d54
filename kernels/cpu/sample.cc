#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numeric>
#include <vector>

#include "common/check.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/philox.h"
#include "kernels/cpu/processor.h"

namespace spillway::cpu {
namespace {

constexpr uint32_t kLaneCount = 16;

// Whether all values are finite, by their exponent bits.
bool all_finite(std::span<const float> logits) {
  uint32_t bad = 0;
  for (const float value : logits) bad |= (std::bit_cast<uint32_t>(value) & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  return bad == 0;
}

// Sixteen running maxima, so that compilers may use vectors; a maximum does not depend on order.
template <class Logit>
Logit highest_logit(std::span<const Logit> logits) {
  std::array<Logit, kLaneCount> highest;
  highest.fill(logits[0]);
  const size_t whole = logits.size() / kLaneCount * kLaneCount;
  for (size_t i = 0; i < whole; i += kLaneCount) {
    for (uint32_t lane = 0; lane < kLaneCount; ++lane) {
      highest[lane] = logits[i + lane] > highest[lane] ? logits[i + lane] : highest[lane];
    }
  }
  for (size_t i = whole; i < logits.size(); ++i) highest[0] = logits[i] > highest[0] ? logits[i] : highest[0];
  Logit result = highest[0];
  for (const Logit value : highest) result = value > result ? value : result;
  return result;
}

template <class Logit>
TokenId lowest_id_of(std::span<const Logit> logits, Logit value) {
  TokenId id = 0;
  while (logits[id] != value) ++id;
  return id;
}

// Bias, then penalties. In f64 no finite logit overflows.
std::vector<double> adjusted_logits(std::span<const float> logits, const SampleRow& row) {
  const SamplingParams& params = row.params;
  std::vector<double> adjusted(logits.begin(), logits.end());
  for (const LogitBias& one : params.logit_bias) {
    CHECK(one.token < adjusted.size());
    adjusted[one.token] += static_cast<double>(one.bias);
  }
  if (!params.looks_back()) return adjusted;
  CHECK(row.prompt_tokens <= row.history.size());
  const double repetition = params.repetition_penalty;
  std::vector<uint32_t> count(adjusted.size());
  for (const TokenId token : row.history) {
    CHECK(token < adjusted.size());
    if (count[token]++ > 0) continue;
    adjusted[token] = adjusted[token] > 0 ? adjusted[token] / repetition : adjusted[token] * repetition;
  }
  std::ranges::fill(count, 0u);
  for (const TokenId token : row.history.subspan(row.prompt_tokens)) ++count[token];
  for (size_t id = 0; id < count.size(); ++id) {
    if (count[id] == 0) continue;
    adjusted[id] -= static_cast<double>(params.frequency_penalty) * count[id];
    adjusted[id] -= static_cast<double>(params.presence_penalty);
  }
  return adjusted;
}

// e^x for x <= 0 to about 1e-15 in plain f64 arithmetic, so that every machine draws the same token: exactly 1 at 0, 0
// below -700. Taylor to degree 13 on [-ln2/2, ln2/2].
double exp_f64(double x) {
  if (x < -700.0) return 0.0;
  constexpr double kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
  const double shifted = x * 1.44269504088896340736 + 6755399441055744.0;  // 1.5 * 2^52: rounds to an integer
  const double whole = shifted - 6755399441055744.0;
  const double r = (x - whole * kLn2High) - whole * kLn2Low;
  double y = 1.0 / 6227020800.0;
  for (const double c : {479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0}) {
    y = y * r + 1.0 / c;
  }
  y = (y * r + 1.0) * r + 1.0;
  return y * std::bit_cast<double>(static_cast<uint64_t>(static_cast<int64_t>(whole) + 1023) << 52);
}

// 53 random bits in [0, 1).
double uniform(const SampleRow& row) {
  const std::array<uint32_t, 4> random =
      philox4x32({row.params.choice, row.position, 0, 0},
                 {static_cast<uint32_t>(row.params.seed), static_cast<uint32_t>(row.params.seed >> 32)});
  return static_cast<double>((uint64_t{random[0]} << 32 | random[1]) >> 11) * 0x1p-53;
}

// softmax(logits / temperature), times what makes the highest weigh 1.
template <class Logit>
struct Softmax {
  std::span<const Logit> logits;
  double top, inverse_temperature;
  double weight(size_t id) const { return exp_f64((static_cast<double>(logits[id]) - top) * inverse_temperature); }
};

// The sum's values at every kStride ids are kept, so that only the stretch that holds the target is computed again.
template <class Logit>
TokenId draw(const Softmax<Logit>& softmax, double u) {
  constexpr size_t kStride = 256;
  const size_t vocab = softmax.logits.size();
  std::vector<double> before;
  before.reserve(vocab / kStride + 1);
  double sum = 0;
  for (size_t id = 0; id < vocab; ++id) {
    if (id % kStride == 0) before.push_back(sum);
    sum += softmax.weight(id);
  }
  const double target = u * sum;
  size_t stretch = before.size() - 1;
  while (stretch > 0 && before[stretch] > target) --stretch;
  sum = before[stretch];
  TokenId last_possible = 0;
  for (size_t id = stretch * kStride; id < vocab; ++id) {
    const double p = softmax.weight(id);
    sum += p;
    if (p > 0) last_possible = static_cast<TokenId>(id);
    if (sum > target) return static_cast<TokenId>(id);
  }
  return last_possible;  // the target was rounded up to the whole sum
}

// Keeps the fewest of the highest whose weights, summed in rank order, reach `top_p` of all, summed in id order. Takes
// and leaves ascending ids.
template <class Logit, class RanksLower>
void keep_top_p(const Softmax<Logit>& softmax, double top_p, std::vector<TokenId>& kept,
                const RanksLower& ranks_lower) {
  std::vector<double> weights;
  weights.reserve(kept.size());
  double whole = 0, held = 0;
  for (const TokenId id : kept) whole += weights.emplace_back(softmax.weight(id));
  // All tokens lighter than this weigh less together than top_p leaves out: they need no ranking, and are the most.
  const double negligible = (1.0 - top_p) * whole / static_cast<double>(kept.size());
  size_t count = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] >= negligible) kept[count++] = kept[i];
  }
  kept.resize(count);
  std::ranges::make_heap(kept, ranks_lower);
  auto heap_end = kept.end();
  while (heap_end != kept.begin() && held < top_p * whole) {
    held += softmax.weight(kept.front());
    std::pop_heap(kept.begin(), heap_end--, ranks_lower);
  }
  kept.erase(kept.begin(), heap_end);
  std::ranges::sort(kept);
}

// Ids that the cuts leave, ascending. Strictly ordered by logit, then id, so nothing depends on how they are sorted.
template <class Logit>
std::vector<TokenId> kept_tokens(const Softmax<Logit>& softmax, const SamplingParams& params) {
  const auto ranks_lower = [&](TokenId a, TokenId b) {
    const Logit one = softmax.logits[a], other = softmax.logits[b];
    return one < other || (one == other && a > b);
  };
  std::vector<TokenId> kept(softmax.logits.size());
  std::iota(kept.begin(), kept.end(), TokenId{0});
  if (params.top_k > 0 && params.top_k < kept.size()) {
    const auto ranks_higher = [&](TokenId a, TokenId b) { return ranks_lower(b, a); };
    std::nth_element(kept.begin(), kept.begin() + params.top_k, kept.end(), ranks_higher);
    kept.resize(params.top_k);
    std::ranges::sort(kept);
  }
  if (params.top_p < 1) keep_top_p(softmax, static_cast<double>(params.top_p), kept, ranks_lower);
  const double least = params.min_p;  // the highest weighs 1
  if (least > 0) std::erase_if(kept, [&](TokenId id) { return softmax.weight(id) < least; });
  return kept;
}

template <class Logit>
TokenId draw_from(const Softmax<Logit>& softmax, std::span<const TokenId> kept, double u) {
  double whole = 0, sum = 0;
  for (const TokenId id : kept) whole += softmax.weight(id);
  TokenId last_possible = 0;
  for (const TokenId id : kept) {
    const double p = softmax.weight(id);
    sum += p;
    if (p > 0) last_possible = id;
    if (sum > u * whole) return id;
  }
  return last_possible;
}

template <class Logit>
TokenId choose(std::span<const Logit> logits, const SampleRow& row) {
  const SamplingParams& params = row.params;
  const Logit top = highest_logit(logits);
  // A top of -infinity: every token is withheld.
  if (!(params.temperature > 0) || !std::isfinite(top)) return lowest_id_of(logits, top);
  const Softmax<Logit> softmax{logits, static_cast<double>(top), 1.0 / static_cast<double>(params.temperature)};
  const double u = uniform(row);
  const bool cuts = params.top_k > 0 || params.top_p < 1 || params.min_p > 0;
  return cuts ? draw_from(softmax, kept_tokens(softmax, params), u) : draw(softmax, u);
}

// The token at hand, then the highest. Every row alone, in id order.
std::vector<TokenLogprob> logprobs_of(std::span<const float> logits, TokenId token, uint32_t count) {
  const auto top = static_cast<double>(highest_logit(logits));
  const Softmax<float> softmax{logits, top, 1.0};
  double sum = 0;
  for (size_t id = 0; id < logits.size(); ++id) sum += softmax.weight(id);
  const double log_sum = std::log(sum);  // >= 0: the highest weighs 1
  const auto logprob = [&](TokenId id) { return static_cast<float>(static_cast<double>(logits[id]) - top - log_sum); };
  std::vector<TokenId> highest;  // descending; equal ones by lower id, for ids ascend
  const size_t listed = std::min<size_t>(count - 1, logits.size());
  for (TokenId id = 0; id < logits.size() && listed > 0; ++id) {
    if (highest.size() == listed && !(logits[id] > logits[highest.back()])) continue;
    if (highest.size() == listed) highest.pop_back();
    const auto place = std::ranges::find_if(highest, [&](TokenId other) { return logits[id] > logits[other]; });
    highest.insert(place, id);
  }
  std::vector<TokenLogprob> out{{token, logprob(token)}};
  for (const TokenId id : highest) out.push_back({id, logprob(id)});
  return out;
}

void fill(std::span<const float> logits, SampleRow& row) {
  if (row.digest) row.logits_digest = XXH3_64bits(logits.data(), logits.size_bytes());
  row.finite = all_finite(logits);
  if (!row.finite) {
    if (!row.given) row.token = 0;
    return;
  }
  if (row.given) {
    CHECK(row.token < logits.size());
  } else if (row.params.logit_bias.empty() && !row.params.looks_back()) {
    row.token = choose(logits, row);
  } else {
    const std::vector<double> adjusted = adjusted_logits(logits, row);
    row.token = choose(std::span<const double>(adjusted), row);
  }
  CHECK(row.logprob_count <= 1 + kLogprobsMax);
  if (row.logprob_count > 0) row.logprobs = logprobs_of(logits, row.token, row.logprob_count);
}

}  // namespace

void CpuBackend::sample(const SampleArgs& args) {
  const uint32_t vocab = args.logits.shape[1];
  CHECK(args.logits.type == DataType::kF32 && args.logits.shape[0] == args.rows.size() && vocab > 0);
  counters_.logit_rows += args.rows.size();
  const FlushDenormals flush;
  pool_.parallel_for(args.logits.shape[0], [&](uint32_t index, uint32_t) {
    const std::span<const float> logits(args.logits.as<float>() + size_t{index} * vocab, vocab);
    fill(logits, args.rows[index]);
  });
}

}  // namespace spillway::cpu
