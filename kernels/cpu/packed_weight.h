#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/panel_format.h"

// Weight::data of this backend: panels of 64 columns one after the other, each of Weight::format, a PanelFormat
// (kernels/cpu/panel_format.h), zero where padded; every ISA level reads the same bytes. PackOrder::kGateUp makes a
// panel of 16 gate, 16 up, 16 gate, 16 up columns. Another order of the bytes is another CpuBackend::pack_format().
//
//   stored as            panels            bytes a value
//   F32, F16, BF16       kBf16             2
//   Q4_0, Q4_1           kCodes4F16        0.625
//   Q5_0, Q5_1, Q8_0     kCodes8F16        1.125
//   Q4_K                 kCodes4F32        0.75
//   Q5_K                 kCodes8F32        1.25
//   Q6_K                 kCodes8F32By16    1.5
//
// Tensors of one matrix that ask for different panels: kBf16 where one of them does, else kCodes8F32By16, which holds
// the values of all the others.
namespace spillway::cpu {

inline constexpr uint32_t kGateUpGroup = 16;

inline uint32_t panel_count(uint32_t rows, PackOrder order) {
  const uint32_t features = order == PackOrder::kGateUp ? rows / 2 : rows;
  const uint32_t per_panel = order == PackOrder::kGateUp ? kPanelColumns / 2 : kPanelColumns;
  return (features + per_panel - 1) / per_panel;
}

}  // namespace spillway::cpu
