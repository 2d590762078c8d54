#pragma once

#include <cstddef>
#include <cstdint>

// What every ISA level reads of a packed panel. Plain C++ only, as kernels/cpu/isa_kernels.h.
namespace spillway::cpu {

inline constexpr uint32_t kPanelColumns = 64;  // output features per packed panel

// How a panel holds its weights. kBf16: pairs, [(depth + 1) / 2][64][2]. The others, narrow: codes of so many bits, and
// d and m of this type for every 32 (kCodes8F32By16: 16) values of a column; weight = fma(code, d, m).
enum class PanelFormat : uint8_t { kBf16, kCodes4F16, kCodes8F16, kCodes4F32, kCodes8F32, kCodes8F32By16 };

// A panel is one run of blocks over ascending k, each of u32 words[values * value_bits / 32][64], then of a narrow
// format d[64], then m[64]. A word is one column's next values: pairs of bf16, lower k in the lower half; codes of 8
// bits, byte i that of the i-th k; or of 4 bits, byte i the i-th k in its low half and the one 4 further in its high.
struct PanelLayout {
  uint32_t value_bits = 16, scale_bytes = 0, block_values = 2;
  constexpr uint32_t word_values() const { return 32 / value_bits; }
  constexpr uint32_t block_words() const { return block_values / word_values(); }
  constexpr size_t block_bytes() const { return kPanelColumns * (4 * size_t{block_words()} + 2 * scale_bytes); }
  constexpr size_t panel_bytes(uint32_t depth) const {
    return (size_t{depth} + block_values - 1) / block_values * block_bytes();
  }
};
constexpr PanelLayout layout_of(PanelFormat format) {
  switch (format) {
    case PanelFormat::kBf16: return {16, 0, 2};
    case PanelFormat::kCodes4F16: return {4, 2, 32};
    case PanelFormat::kCodes8F16: return {8, 2, 32};
    case PanelFormat::kCodes4F32: return {4, 4, 32};
    case PanelFormat::kCodes8F32: return {8, 4, 32};
    case PanelFormat::kCodes8F32By16: return {8, 4, 16};
  }
  return {};
}

}  // namespace spillway::cpu
