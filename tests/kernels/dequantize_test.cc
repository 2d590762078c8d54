#include "kernels/cpu/dequantize.h"

#include <algorithm>
#include <string>

#include "common/check.h"
#include "formats/gguf.h"
#include "tests/kernels/backend_cases.h"

// Every stored type against tests/data/gguf_types.gguf: blocks and their values by the PyPI package `gguf`, an
// independent implementation (tests/formats/make_types_fixture.py), bit by bit.
namespace spillway {
namespace {

struct NamedType {
  const char* name;
  StoredType type;
};
constexpr NamedType kBlockTypes[] = {
    {"Q8_0", StoredType::kQ8_0}, {"Q4_0", StoredType::kQ4_0}, {"Q4_1", StoredType::kQ4_1}, {"Q5_0", StoredType::kQ5_0},
    {"Q5_1", StoredType::kQ5_1}, {"Q4_K", StoredType::kQ4_K}, {"Q5_K", StoredType::kQ5_K}, {"Q6_K", StoredType::kQ6_K}};

std::vector<NamedType> stored_types() {
  std::vector<NamedType> types{{"F16", StoredType::kF16}, {"BF16", StoredType::kBf16}};
  types.insert(types.end(), std::begin(kBlockTypes), std::end(kBlockTypes));
  return types;
}

GgufFile fixture() {
  Result<GgufFile> file = GgufFile::open(SPILLWAY_TEST_DATA "/gguf_types.gguf");
  if (!file) throw SetupError(file.error().detail);
  return std::move(*file);
}

FileTensor stored(const GgufFile& file, const NamedType& type) {
  const GgufTensor& tensor = *file.tensor(std::string(type.name) + ".stored").value();
  return {type.name, type.type, static_cast<uint32_t>(tensor.shape[1]), static_cast<uint32_t>(tensor.shape[0]),
          tensor.bytes};
}

std::vector<float> expected(const GgufFile& file, const NamedType& type) {
  const GgufTensor& tensor = *file.tensor(std::string(type.name) + ".expected").value();
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

std::string setup_error(const FileTensor& tensor) {
  try {
    cpu::check_stored(tensor);
  } catch (const SetupError& error) {
    return error.what();
  }
  return "";
}

TEST(Dequantize, EveryTypeHasTheBitsOfAnIndependentImplementation) {
  const GgufFile file = fixture();
  for (const NamedType& type : stored_types()) {
    const FileTensor tensor = stored(file, type);
    cpu::check_stored(tensor);
    const std::vector<float> values = expected(file, type);
    ASSERT_EQ(values.size(), size_t{tensor.rows} * tensor.cols);
    std::vector<float> row(tensor.cols);
    for (uint32_t index = 0; index < tensor.rows; ++index) {
      cpu::dequantize(tensor, index, 0, row);
      for (uint32_t col = 0; col < tensor.cols; ++col)
        ASSERT_EQ(std::bit_cast<uint32_t>(row[col]), std::bit_cast<uint32_t>(values[index * tensor.cols + col]))
            << type.name << " row " << index << " col " << col << ": " << row[col] << ", expected "
            << values[index * tensor.cols + col];
    }
  }
}

// Rows of odd sizes begin at odd addresses in a file; vectors must not care.
TEST(Dequantize, AnyAddressWillDo) {
  const GgufFile file = fixture();
  for (const NamedType& type : stored_types()) {
    FileTensor tensor = stored(file, type);
    std::vector<std::byte> shifted(tensor.bytes.size() + 1);
    std::copy(tensor.bytes.begin(), tensor.bytes.end(), shifted.begin() + 1);
    tensor.bytes = std::span(shifted).subspan(1);
    std::vector<float> row(tensor.cols);
    cpu::dequantize(tensor, 1, 0, row);
    const std::vector<float> values = expected(file, type);
    EXPECT_TRUE(same_bits<float>(row, std::span(values).subspan(tensor.cols, tensor.cols))) << type.name;
  }
}

TEST(Dequantize, AScaleThatIsNoNumberIsSeenInEveryValueItScales) {
  for (const NamedType& type : kBlockTypes) {
    const cpu::StoredBlock block = cpu::stored_block(type.type);
    std::vector<std::byte> bytes(block.bytes, std::byte{0x11});
    const size_t at = type.type == StoredType::kQ6_K ? block.bytes - 2 : 0;
    for (const uint16_t scale : {0x7c00, 0xfc00, 0x7e00, 0x7c01}) {
      std::memcpy(bytes.data() + at, &scale, sizeof scale);
      std::vector<float> values(block.values);
      cpu::dequantize({type.name, type.type, 1, block.values, bytes}, 0, 0, values);
      for (const float value : values) ASSERT_FALSE(std::isfinite(value)) << type.name << " " << scale;
    }
  }
}

TEST(Dequantize, ColsThatAreNoMultipleOfTheBlockAreRefusedByTensorAndType) {
  for (const NamedType& type : kBlockTypes) {
    const cpu::StoredBlock block = cpu::stored_block(type.type);
    for (const uint32_t cols :
         {uint32_t{1}, block.values - 1, block.values + 32 - block.values % 64, 3 * block.values / 2}) {
      const std::vector<std::byte> bytes(4096);
      const std::string error = setup_error({"blk.1.odd", type.type, 2, cols, bytes});
      for (const std::string& part : {std::string("blk.1.odd"), std::string(type.name), std::to_string(block.values)})
        EXPECT_NE(error.find(part), std::string::npos) << error;
    }
    const std::vector<std::byte> bytes(size_t{block.bytes} * 2);
    EXPECT_EQ(setup_error({"whole", type.type, 2, block.values, bytes}), "");
    EXPECT_NE(setup_error({"short", type.type, 2, block.values, std::span(bytes).first(bytes.size() - 1)}), "");
    EXPECT_NE(setup_error({"long", type.type, 1, block.values, bytes}), "");
    EXPECT_NE(setup_error({"none", type.type, 0, block.values, {}}), "");
  }
}

// The way of a weight into a product: rows of each type, three matrices of different types packed as one, read back by
// an identity. And the way of an embedding row: not rounded to bf16.
using StoredTypesOnIsa = BackendTest;
SPILLWAY_FOR_EACH_ISA(StoredTypesOnIsa);

TEST_P(StoredTypesOnIsa, PackedMatricesOfMixedTypesAreTheValues) {
  const GgufFile file = fixture();
  const auto backend = make(2);
  for (const NamedType& first : kBlockTypes) {
    std::vector<FileTensor> tensors;
    std::vector<float> values;
    for (const NamedType& type : {first, NamedType{"Q6_K", StoredType::kQ6_K}, NamedType{"Q4_0", StoredType::kQ4_0}}) {
      tensors.push_back(stored(file, type));
      const std::vector<float> more = expected(file, type);
      values.insert(values.end(), more.begin(), more.end());
    }
    const uint32_t depth = tensors[0].cols, rows = 9;
    const Weight weight = backend->pack(tensors, PackOrder::kRows);
    ASSERT_EQ(weight.rows, rows);
    std::vector<uint16_t> identity(size_t{depth} * depth);
    for (uint32_t k = 0; k < depth; ++k) identity[size_t{k} * (depth + 1)] = bf16_from_f32(1);
    std::vector<float> out(size_t{depth} * rows);
    backend->gemm({view(identity, {depth, depth}), &weight, Epilogue::kNone, view(out, {depth, rows})});
    for (uint32_t k = 0; k < depth; ++k)
      for (uint32_t row = 0; row < rows; ++row)
        ASSERT_EQ(out[k * rows + row], values[row * depth + k]) << first.name << " row " << row << " k " << k;
  }
}

TEST_P(StoredTypesOnIsa, EmbeddingRowsAreTheValuesThemselves) {
  const GgufFile file = fixture();
  for (const NamedType& type : stored_types()) {
    const FileTensor table = stored(file, type);
    const std::vector<TokenId> tokens{2, 0, 2};
    std::vector<float> out(tokens.size() * table.cols);
    make(2)->embed({tokens, &table, view(out, {3, table.cols})});
    const std::vector<float> values = expected(file, type);
    for (uint32_t row = 0; row < 3; ++row)
      EXPECT_TRUE(same_bits<float>(std::span(out).subspan(size_t{row} * table.cols, table.cols),
                                   std::span(values).subspan(size_t{tokens[row]} * table.cols, table.cols)))
          << type.name << " row " << row;
  }
}

}  // namespace
}  // namespace spillway
