#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>
#include <bit>
#include <cmath>

#include "common/check.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/philox.h"

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
float highest_logit(std::span<const float> logits) {
  std::array<float, kLaneCount> highest;
  highest.fill(logits[0]);
  const size_t whole = logits.size() / kLaneCount * kLaneCount;
  for (size_t i = 0; i < whole; i += kLaneCount) {
    for (uint32_t lane = 0; lane < kLaneCount; ++lane) {
      highest[lane] = logits[i + lane] > highest[lane] ? logits[i + lane] : highest[lane];
    }
  }
  for (size_t i = whole; i < logits.size(); ++i) highest[0] = logits[i] > highest[0] ? logits[i] : highest[0];
  float result = highest[0];
  for (const float value : highest) result = value > result ? value : result;
  return result;
}

TokenId lowest_id_of(std::span<const float> logits, float value) {
  TokenId id = 0;
  while (logits[id] != value) ++id;
  return id;
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

// The sum's values at every kStride ids are kept, so that only the stretch that holds the target is computed again.
TokenId draw(std::span<const float> logits, const SampleRow& row) {
  constexpr size_t kStride = 256;
  const double top = highest_logit(logits), inverse = 1.0 / static_cast<double>(row.params.temperature);
  const auto weight = [&](size_t id) { return exp_f64((static_cast<double>(logits[id]) - top) * inverse); };
  std::vector<double> before;
  before.reserve(logits.size() / kStride + 1);
  double sum = 0;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (id % kStride == 0) before.push_back(sum);
    sum += weight(id);
  }
  const double target = uniform(row) * sum;
  size_t stretch = before.size() - 1;
  while (stretch > 0 && before[stretch] > target) --stretch;
  sum = before[stretch];
  TokenId last_possible = 0;
  for (size_t id = stretch * kStride; id < logits.size(); ++id) {
    const double p = weight(id);
    sum += p;
    if (p > 0) last_possible = static_cast<TokenId>(id);
    if (sum > target) return static_cast<TokenId>(id);
  }
  return last_possible;  // the target was rounded up to the whole sum
}

}  // namespace

void CpuBackend::sample(const SampleArgs& args) {
  const uint32_t vocab = args.logits.shape[1];
  CHECK(args.logits.type == DataType::kF32 && args.logits.shape[0] == args.rows.size() && vocab > 0);
  counters_.logit_rows += args.rows.size();
  const FlushDenormals flush;
  pool_.parallel_for(args.logits.shape[0], [&](uint32_t index, uint32_t) {
    SampleRow& row = args.rows[index];
    const std::span<const float> logits(args.logits.as<float>() + size_t{index} * vocab, vocab);
    if (row.digest) row.logits_digest = XXH3_64bits(logits.data(), logits.size_bytes());
    row.finite = all_finite(logits);
    if (!row.finite) {
      row.token = 0;
    } else if (row.params.temperature > 0) {
      row.token = draw(logits, row);
    } else {
      row.token = lowest_id_of(logits, highest_logit(logits));
    }
  });
}

}  // namespace spillway::cpu
