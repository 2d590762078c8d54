#include "common/check.h"
#include "kernels/bf16.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/processor.h"
#include "kernels/cpu/rms_scale.h"

namespace spillway::cpu {

void CpuBackend::rms_norm(const RmsNormArgs& args) {
  const uint32_t rows = args.x.shape[0], hidden = args.x.shape[1];
  CHECK(args.x.type == DataType::kF32 && args.weight.type == DataType::kF32 && args.out.type == DataType::kBf16);
  CHECK(args.weight.shape[0] == hidden && args.out.shape[0] == rows && args.out.shape[1] == hidden);
  const FlushDenormals flush;
  const float* weight = args.weight.as<float>();
  pool_.parallel_for(rows, [&](uint32_t row, uint32_t) {
    const float* x = args.x.as<float>() + size_t{row} * hidden;
    uint16_t* out = args.out.as<uint16_t>() + size_t{row} * hidden;
    const float scale = rms_scale(x, hidden, args.epsilon);
    for (uint32_t i = 0; i < hidden; ++i) out[i] = bf16_from_f32(x[i] * scale * weight[i]);
  });
}

}  // namespace spillway::cpu
