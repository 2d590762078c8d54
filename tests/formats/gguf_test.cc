#include "formats/gguf.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <fstream>
#include <limits>

#include "tests/support/gguf_writer.h"

namespace spillway {
namespace {

std::vector<std::byte> counted_bytes(size_t count) {
  std::vector<std::byte> bytes(count);
  for (size_t index = 0; index < count; ++index) bytes[index] = static_cast<std::byte>(index * 7 + 1);
  return bytes;
}

GgufFile opened(const GgufWriter& writer) {
  Result<GgufFile> file = GgufFile::from_bytes(writer.bytes());
  if (!file) throw std::runtime_error(file.error().detail);
  return std::move(*file);
}

TEST(Gguf, EveryScalarTypeKeepsItsValue) {
  GgufWriter writer;
  writer.add("u8", uint8_t{255}).add("u16", uint16_t{65535}).add("u32", uint32_t{4294967295u});
  writer.add("u64", std::numeric_limits<uint64_t>::max());
  writer.add("i8", int8_t{7}).add("i16", int16_t{-8}).add("i32", int32_t{-9}).add("i64", int64_t{1} << 40);
  writer.add("f32", 0.5f).add("f64", 1e300).add("yes", true).add("no", false).add("text", "h\xC3\xA9").add("empty", "");
  const GgufFile file = opened(writer);
  EXPECT_EQ(file.get_uint("u8").value(), 255u);
  EXPECT_EQ(file.get_uint("u16").value(), 65535u);
  EXPECT_EQ(file.get_uint("u32").value(), 4294967295u);
  EXPECT_EQ(file.get_uint("u64").value(), std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(file.get_uint("i8").value(), 7u);
  EXPECT_EQ(file.get_uint("i64").value(), uint64_t{1} << 40);
  EXPECT_FALSE(file.get_uint("i16"));  // negative
  EXPECT_FALSE(file.get_uint("i32"));
  EXPECT_EQ(file.get_float("f32").value(), 0.5);
  EXPECT_EQ(file.get_float("f64").value(), 1e300);
  EXPECT_TRUE(file.get_bool("yes").value());
  EXPECT_FALSE(file.get_bool("no").value());
  EXPECT_EQ(file.get_string("text").value(), "h\xC3\xA9");
  EXPECT_EQ(file.get_string("empty").value(), "");
}

TEST(Gguf, EveryArrayTypeKeepsItsItems) {
  GgufWriter writer;
  writer.add_array("strings", std::vector<std::string>{"a", "", "ccc"}).add_array("none", std::vector<std::string>{});
  writer.add_array("u8", std::vector<uint8_t>{0, 255}).add_array("i32", std::vector<int32_t>{-1, 2});
  writer.add_array("u64", std::vector<uint64_t>{5}).add_array("bools", std::vector<bool>{true, false});
  const GgufFile file = opened(writer);
  EXPECT_EQ(*file.get_strings("strings").value(), (std::vector<std::string>{"a", "", "ccc"}));
  EXPECT_TRUE(file.get_strings("none").value()->empty());
  EXPECT_EQ(*file.get_ints("u8").value(), (std::vector<int64_t>{0, 255}));
  EXPECT_EQ(*file.get_ints("i32").value(), (std::vector<int64_t>{-1, 2}));
  EXPECT_EQ(*file.get_ints("u64").value(), (std::vector<int64_t>{5}));
  EXPECT_EQ(*file.get_ints("bools").value(), (std::vector<int64_t>{1, 0}));
}

TEST(Gguf, AbsentKeyAndWrongTypeAreErrorsNamingTheKey) {
  const GgufFile file = opened(GgufWriter().add("number", uint32_t{1}).add_array("floats", std::vector<float>{1}));
  for (const Error& error : {file.get_uint("absent").error(), file.get_strings("absent").error()}) {
    EXPECT_EQ(error.code, ErrorCode::kInvalidArgument);
    EXPECT_NE(error.detail.find("absent"), std::string::npos) << error.detail;
  }
  EXPECT_NE(file.get_string("number").error().detail.find("number"), std::string::npos);
  EXPECT_FALSE(file.get_float("number"));
  EXPECT_FALSE(file.get_bool("number"));
  EXPECT_FALSE(file.get_ints("number"));
  EXPECT_FALSE(file.get_ints("floats"));
  EXPECT_FALSE(file.get_strings("floats"));
  EXPECT_TRUE(file.contains("number"));
  EXPECT_FALSE(file.contains("numbe"));
  EXPECT_FALSE(file.tensor("nothing"));
}

TEST(Gguf, TensorsOfEverySupportedTypeAreTheBytesWritten) {
  struct Case {
    GgufType type;
    std::vector<uint64_t> shape;
    size_t bytes;
  };
  const Case cases[] = {{GgufType::kF32, {3}, 12},
                        {GgufType::kBf16, {5, 3}, 30},
                        {GgufType::kQ8_0, {64, 2, 3}, 34 * 2 * 2 * 3},
                        {GgufType::kQ4_1, {32, 1, 1, 4}, 20 * 4},
                        {GgufType::kF16, {7, 3}, 42},
                        {GgufType::kQ4_0, {96, 5}, 18 * 3 * 5},
                        {GgufType::kQ5_0, {32}, 22},
                        {GgufType::kQ5_1, {64, 7}, 24 * 2 * 7},
                        {GgufType::kQ4_K, {512, 2}, 144 * 2 * 2},
                        {GgufType::kQ5_K, {256, 3}, 176 * 3},
                        {GgufType::kQ6_K, {768}, 210 * 3}};
  for (const uint32_t alignment : {8u, 32u, 4096u}) {
    GgufWriter writer(alignment);
    for (const Case& c : cases) writer.add_tensor(std::to_string(c.bytes), c.type, c.shape, counted_bytes(c.bytes));
    const GgufFile file = opened(writer);
    ASSERT_EQ(file.tensors().size(), std::size(cases));
    for (const Case& c : cases) {
      const GgufTensor& tensor = *file.tensor(std::to_string(c.bytes)).value();
      EXPECT_EQ(tensor.type, c.type);
      EXPECT_EQ(tensor.shape, c.shape);
      EXPECT_EQ(std::vector<std::byte>(tensor.bytes.begin(), tensor.bytes.end()), counted_bytes(c.bytes));
      EXPECT_EQ((tensor.bytes.data() - file.bytes().data()) % alignment, 0);
    }
  }
}

TEST(Gguf, AnUnsupportedTensorTypeIsNamedWithWhatIsSupported) {
  struct Case {
    uint32_t id;
    const char* name;
  };
  // ggml.h, enum ggml_type: all that are not supported.
  const Case cases[] = {{4, "Q4_2"},        {5, "Q4_3"},        {9, "Q8_1"},
                        {10, "Q2_K"},       {11, "Q3_K"},       {15, "Q8_K"},
                        {16, "IQ2_XXS"},    {17, "IQ2_XS"},     {18, "IQ3_XXS"},
                        {19, "IQ1_S"},      {20, "IQ4_NL"},     {21, "IQ3_S"},
                        {22, "IQ2_S"},      {23, "IQ4_XS"},     {24, "I8"},
                        {25, "I16"},        {26, "I32"},        {27, "I64"},
                        {28, "F64"},        {29, "IQ1_M"},      {31, "Q4_0_4_4"},
                        {32, "Q4_0_4_8"},   {33, "Q4_0_8_8"},   {34, "TQ1_0"},
                        {35, "TQ2_0"},      {36, "IQ4_NL_4_4"}, {37, "IQ4_NL_4_8"},
                        {38, "IQ4_NL_8_8"}, {39, "MXFP4"},      {40, "NVFP4"},
                        {41, "Q1_0"},       {42, "unknown"},    {0xFFFFFFFF, "unknown"}};
  for (const Case& c : cases) {
    const auto bytes = GgufWriter().add_tensor("blk.7.weird", c.id, {256}, counted_bytes(144)).bytes();
    const Error error = GgufFile::from_bytes(bytes).error();
    EXPECT_EQ(error.code, ErrorCode::kUnsupported);
    const std::string type = " " + std::to_string(c.id) + " (" + c.name + ")";
    for (const std::string_view part : {std::string_view("blk.7.weird"), std::string_view(type),
                                        std::string_view("supported are F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, "
                                                         "Q5_K, Q6_K, BF16")})
      EXPECT_NE(error.detail.find(part), std::string::npos) << part << " in " << error.detail;
  }
}

TEST(Gguf, Version2IsReadAsVersion3) {
  std::vector<std::byte> bytes =
      GgufWriter().add("key", "value").add_tensor("t", GgufType::kF32, {2}, counted_bytes(8)).bytes();
  bytes[4] = std::byte{2};
  const Result<GgufFile> file = GgufFile::from_bytes(bytes);
  ASSERT_TRUE(file) << file.error().detail;
  EXPECT_EQ(file->get_string("key").value(), "value");
  EXPECT_EQ(file->tensor("t").value()->bytes.size(), 8u);
}

// tests/data/gguf_types.gguf, by the writer of the PyPI package `gguf` (make_types_fixture.py): every type in one file,
// with the metadata that Llama 3 files carry. What the tensors are worth: tests/kernels/dequantize_test.cc.
TEST(Gguf, AMixedFileOfTheReferenceWriterReads) {
  const Result<GgufFile> file = GgufFile::open(SPILLWAY_TEST_DATA "/gguf_types.gguf");
  ASSERT_TRUE(file) << file.error().detail;
  EXPECT_EQ(file->get_string("general.architecture").value(), "llama");
  EXPECT_EQ(*file->get_strings("general.tags").value(), (std::vector<std::string>{"text-generation", "llama-3"}));
  EXPECT_EQ(file->get_uint("general.file_type").value(), 15u);
  EXPECT_EQ(file->get_uint("general.quantization_version").value(), 2u);
  EXPECT_EQ(file->get_uint("llama.context_length").value(), 131072u);
  EXPECT_EQ(file->get_float("llama.rope.freq_base").value(), 500000.0);
  EXPECT_EQ(*file->get_strings("tokenizer.ggml.tokens").value(),
            (std::vector<std::string>{"a", "b", "\xC3\xA9", "<|eot_id|>"}));
  EXPECT_EQ(*file->get_ints("tokenizer.ggml.token_type").value(), (std::vector<int64_t>{1, 1, 1, 3}));
  EXPECT_TRUE(file->contains("tokenizer.ggml.scores"));
  EXPECT_TRUE(file->get_bool("tokenizer.ggml.add_bos_token").value());
  EXPECT_EQ(file->get_uint("quantize.imatrix.entries_count").value(), 224u);
  const GgufTensor& freqs = *file->tensor("rope_freqs.weight").value();
  EXPECT_EQ(freqs.type, GgufType::kF32);
  EXPECT_EQ(freqs.shape, std::vector<uint64_t>{64});
  struct Case {
    const char* name;
    GgufType type;
    size_t bytes;  // of a row of 512 values
  };
  const Case cases[] = {{"F16", GgufType::kF16, 1024},  {"BF16", GgufType::kBf16, 1024}, {"Q8_0", GgufType::kQ8_0, 544},
                        {"Q4_0", GgufType::kQ4_0, 288}, {"Q4_1", GgufType::kQ4_1, 320},  {"Q5_0", GgufType::kQ5_0, 352},
                        {"Q5_1", GgufType::kQ5_1, 384}, {"Q4_K", GgufType::kQ4_K, 288},  {"Q5_K", GgufType::kQ5_K, 352},
                        {"Q6_K", GgufType::kQ6_K, 420}};
  EXPECT_EQ(file->tensors().size(), 1 + 2 * std::size(cases));
  for (const Case& c : cases) {
    const GgufTensor& tensor = *file->tensor(std::string(c.name) + ".stored").value();
    EXPECT_EQ(tensor.type, c.type) << c.name;
    EXPECT_EQ(tensor.shape, (std::vector<uint64_t>{512, 3})) << c.name;
    EXPECT_EQ(tensor.bytes.size(), 3 * c.bytes) << c.name;
  }
}

TEST(Gguf, OpenMapsWhatFromBytesReads) {
  const std::string path = testing::TempDir() + "open_maps.gguf";
  GgufWriter writer;
  writer.add("key", "value").add_tensor("t", GgufType::kF32, {2}, counted_bytes(8));
  writer.write(path);
  Result<GgufFile> file = GgufFile::open(path);
  ASSERT_TRUE(file) << file.error().detail;
  const GgufFile moved = std::move(*file);  // spans and tables survive a move
  EXPECT_EQ(moved.get_string("key").value(), "value");
  const GgufTensor& tensor = *moved.tensor("t").value();
  EXPECT_EQ(std::vector<std::byte>(tensor.bytes.begin(), tensor.bytes.end()), counted_bytes(8));
  EXPECT_EQ(moved.bytes().size(), writer.bytes().size());
}

TEST(Gguf, AFileThatCannotBeReadIsAnErrorWithPathAndCause) {
  const std::string folder = testing::TempDir();
  const std::string empty = folder + "empty.gguf", pipe = folder + "pipe.gguf";
  std::ofstream(empty, std::ios::trunc).flush();
  ::mkfifo(pipe.c_str(), 0600);
  for (const std::string& path : {folder + "missing.gguf", folder, empty, pipe}) {
    const Result<GgufFile> file = GgufFile::open(path);
    ASSERT_FALSE(file) << path;
    EXPECT_EQ(file.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(file.error().detail.find(path), std::string::npos);
  }
}

TEST(Gguf, TheDemoModelReads) {
  const Result<GgufFile> file = GgufFile::open(SPILLWAY_MODEL);
  ASSERT_TRUE(file) << file.error().detail;
  EXPECT_EQ(file->get_string("general.architecture").value(), "llama");
  EXPECT_EQ(file->get_uint("llama.block_count").value(), 30u);
  EXPECT_EQ(file->get_float("llama.rope.freq_base").value(), 100000.0);
  EXPECT_FALSE(file->get_bool("tokenizer.ggml.add_bos_token").value());
  EXPECT_EQ(file->get_strings("tokenizer.ggml.tokens").value()->size(), 49152u);
  EXPECT_EQ(file->get_ints("tokenizer.ggml.token_type").value()->size(), 49152u);
  EXPECT_EQ(file->tensors().size(), 272u);
  const GgufTensor& embedding = *file->tensor("token_embd.weight").value();
  EXPECT_EQ(embedding.type, GgufType::kQ8_0);
  EXPECT_EQ(embedding.shape, (std::vector<uint64_t>{576, 49152}));
  EXPECT_EQ(embedding.bytes.size(), size_t{576} / 32 * 34 * 49152);
  const GgufTensor& last = *file->tensor("output_norm.weight").value();
  EXPECT_EQ(last.bytes.data() + last.bytes.size(), file->bytes().data() + file->bytes().size());
}

}  // namespace
}  // namespace spillway
