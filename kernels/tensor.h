#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace spillway {

enum class DataType : uint8_t { kF32, kBf16, kU32 };

// A dense row-major tensor in a Backend's memory. Never owns.
struct TensorView {
  std::byte* data = nullptr;
  DataType type = DataType::kF32;
  std::array<uint32_t, 3> shape{};  // unused trailing dimensions are 1
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }
};

// How a weight file stores values: the types of GGUF, by their names there (Q8_0: 32 x int8 with an f16 scale; Q4_K:
// 256 x 4 bits with scales and minima of 6 bits a 32). kernels/cpu/dequantize.h says what each is worth.
enum class StoredType : uint8_t { kF32, kF16, kBf16, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ4_K, kQ5_K, kQ6_K };

// A matrix [rows = output features, cols = input features] (or a vector: rows == 1) as it lies in the file, row-major.
// The bytes stay mapped while the Backend lives.
struct FileTensor {
  std::string name;
  StoredType type = StoredType::kF32;
  uint32_t rows = 0, cols = 0;  // cols: a multiple of the values in a block of the type
  std::span<const std::byte> bytes;
  // Not 0: every run of so many rows (a head of Q or K) holds first the first rows of its RoPE pairs, then the second
  // ones ("NEOX": rows i and i + half make pair i). pack() puts pairs together, so that one order is left in memory.
  uint32_t half_split_rows = 0;
};

// Where such a run holds row `row` of the paired order. REQUIRES half_split_rows even.
constexpr uint32_t half_split_source(uint32_t row, uint32_t half_split_rows) {
  const uint32_t in_head = row % half_split_rows;
  return row - in_head + in_head % 2 * (half_split_rows / 2) + in_head / 2;
}

enum class PackOrder : uint8_t {
  kRows,    // the tensors' rows one after the other (q, k, v make one matrix)
  kGateUp,  // two tensors of equal shape, arranged so that Epilogue::kSwiGlu finds gate and up of a feature together
};

// A matrix in a device's own packed order. Opaque outside the backend that made it; lives as long as the backend.
struct Weight {
  const std::byte* data = nullptr;
  uint32_t rows = 0, cols = 0;  // logical [N, K]
  PackOrder order = PackOrder::kRows;
  uint8_t format = 0;  // the backend's own: how it holds values
  size_t bytes = 0;    // packed size: what one pass over it reads
};

}  // namespace spillway
