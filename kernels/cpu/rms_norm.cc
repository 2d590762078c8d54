#include <array>
#include <cmath>

#include "common/check.h"
#include "kernels/bf16.h"
#include "kernels/cpu/cpu_backend.h"

namespace spillway::cpu {
namespace {

// Sixteen partial sums (element i goes to sum i mod 16, in ascending order), folded in halves: an order of its own that
// compilers turn into vector code without leave to reorder.
float sum_of_squares(const float* x, uint32_t count) {
  std::array<float, 16> sums{};
  const uint32_t whole = count / 16 * 16;
  for (uint32_t i = 0; i < whole; i += 16) {
    for (uint32_t lane = 0; lane < 16; ++lane) sums[lane] += x[i + lane] * x[i + lane];
  }
  for (uint32_t i = whole; i < count; ++i) sums[i - whole] += x[i] * x[i];
  for (uint32_t width = 8; width > 0; width /= 2) {
    for (uint32_t lane = 0; lane < width; ++lane) sums[lane] += sums[lane + width];
  }
  return sums[0];
}

}  // namespace

void CpuBackend::rms_norm(const RmsNormArgs& args) {
  const uint32_t rows = args.x.shape[0], hidden = args.x.shape[1];
  CHECK(args.x.type == DataType::kF32 && args.weight.type == DataType::kF32 && args.out.type == DataType::kBf16);
  CHECK(args.weight.shape[0] == hidden && args.out.shape[0] == rows && args.out.shape[1] == hidden);
  const FlushDenormals flush;
  const float* weight = args.weight.as<float>();
  pool_.parallel_for(rows, [&](uint32_t row, uint32_t) {
    const float* x = args.x.as<float>() + size_t{row} * hidden;
    uint16_t* out = args.out.as<uint16_t>() + size_t{row} * hidden;
    const float scale = 1.0f / std::sqrt(sum_of_squares(x, hidden) / static_cast<float>(hidden) + args.epsilon);
    for (uint32_t i = 0; i < hidden; ++i) out[i] = bf16_from_f32(x[i] * scale * weight[i]);
  });
}

}  // namespace spillway::cpu
