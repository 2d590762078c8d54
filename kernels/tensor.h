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

// How a weight file stores values. Q8_0: 32 x int8 with an f16 scale; Q4_1: 32 x 4 bits with f16 scale and minimum.
enum class StoredType : uint8_t { kF32, kBf16, kQ8_0, kQ4_1 };

// A matrix [rows = output features, cols = input features] (or a vector: rows == 1) as it lies in the file, row-major.
// The bytes stay mapped while the Backend lives.
struct FileTensor {
  std::string name;
  StoredType type = StoredType::kF32;
  uint32_t rows = 0, cols = 0;  // cols: a multiple of 32 for block types
  std::span<const std::byte> bytes;
};

enum class PackOrder : uint8_t {
  kRows,    // the tensors' rows one after the other (q, k, v make one matrix)
  kGateUp,  // two tensors of equal shape, arranged so that Epilogue::kSwiGlu finds gate and up of a feature together
};

// A matrix in a device's own packed order. Opaque outside the backend that made it; lives as long as the backend.
struct Weight {
  const std::byte* data = nullptr;
  uint32_t rows = 0, cols = 0;  // logical [N, K]
  PackOrder order = PackOrder::kRows;
  size_t bytes = 0;  // packed size: what one pass over it reads
};

}  // namespace spillway
