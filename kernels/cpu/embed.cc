#include "common/check.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/dequantize.h"
#include "kernels/cpu/processor.h"

namespace spillway::cpu {

void CpuBackend::embed(const EmbedArgs& args) {
  CHECK(args.table != nullptr && args.out.type == DataType::kF32);
  CHECK(args.out.shape[0] == args.tokens.size() && args.out.shape[1] == args.table->cols);
  const FlushDenormals flush;
  const uint32_t hidden = args.table->cols;
  pool_.parallel_for(args.out.shape[0], [&](uint32_t row, uint32_t) {
    dequantize(*args.table, args.tokens[row], 0, {args.out.as<float>() + size_t{row} * hidden, hidden});
  });
}

}  // namespace spillway::cpu
