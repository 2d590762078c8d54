#include "kernels/bf16.h"
#include "kernels/cpu/stored_blocks.h"

namespace spillway::cpu {
namespace {

template <uint32_t N>
struct Halves {
  static constexpr uint32_t kValues = N;
  uint16_t bits[N];
};

template <class Convert>
void decode_halves(const std::byte* bytes, size_t count, float* out, const Convert& convert) {
  const auto decode = [&](const auto& halves, float* values) {
    for (uint32_t j = 0; j < halves.kValues; ++j) values[j] = convert(halves.bits[j]);
  };
  constexpr uint32_t kMany = 32;
  const size_t whole = count / kMany * kMany;
  decode_each<Halves<kMany>>(bytes, count / kMany, out, decode);
  decode_each<Halves<1>>(bytes + whole * sizeof(uint16_t), count - whole, out + whole, decode);
}

}  // namespace

void decode_f32(const std::byte* blocks, size_t count, float* out) { std::memcpy(out, blocks, count * sizeof *out); }

void decode_f16(const std::byte* blocks, size_t count, float* out) {
  decode_halves(blocks, count, out, [](uint16_t bits) { return f32_from_f16(bits); });
}

void decode_bf16(const std::byte* blocks, size_t count, float* out) {
  decode_halves(blocks, count, out, [](uint16_t bits) { return f32_from_bf16(bits); });
}

}  // namespace spillway::cpu
