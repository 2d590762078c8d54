#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/isa_kernels.h"

// Weight::data of this backend: panels bf16 [N / 64][(K + 1) / 2][64][2], zero where padded; every ISA level reads the
// same bytes. PackOrder::kGateUp makes a panel of 16 gate, 16 up, 16 gate, 16 up columns. Another order of the bytes is
// another CpuBackend::pack_format().
namespace spillway::cpu {

inline constexpr uint32_t kGateUpGroup = 16;

inline uint32_t panel_count(uint32_t rows, PackOrder order) {
  const uint32_t features = order == PackOrder::kGateUp ? rows / 2 : rows;
  const uint32_t per_panel = order == PackOrder::kGateUp ? kPanelColumns / 2 : kPanelColumns;
  return (features + per_panel - 1) / per_panel;
}

inline size_t panel_elements(uint32_t depth) { return (size_t{depth} + 1) / 2 * 2 * kPanelColumns; }

}  // namespace spillway::cpu
