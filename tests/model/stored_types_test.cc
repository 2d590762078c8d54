// Models whose tensors are stored in different types: the decoder reads each as what it is worth.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/make_backend.h"
#include "tests/model/decoder_harness.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/tiny_model.h"

namespace spillway {
namespace {

using Part = DecoderHarness::Part;
using Types = TinyModelOptions::Types;

TinyModelOptions options_of(Types types, bool tied) {
  return {.seed = 31,
          .layers = 2,
          .hidden = 256,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 64,
          .feed_forward = 256,
          .types = types,
          .tied = tied};
}

std::vector<std::vector<float>> all_logits(const GgufFile& file, const std::string& isa) {
  DecoderHarness decoder(file, {.isa = isa, .threads = 2, .slot_count = 4});
  ResidentGate gate;
  const Part part{.tokens = draw_tokens(5, 70, TinyModel::kTinyVocab), .slots = slots_from(0, 2), .all_logits = true};
  return decoder.forward({&part, 1}, gate);
}

class StoredTypes : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Isa, StoredTypes, testing::ValuesIn(available_isa_levels()));

// The F32 file holds what tests/support/tiny_weights.cc says the stored bits are worth, made without a dequantiser of
// the product: equal logits mean that embedding, packing and classifier each decoded the right rows by the right type.
TEST_P(StoredTypes, LogitsHaveTheBitsOfTheSameModelStoredAsF32) {
  if (GetParam() != "avx512bf16")
    GTEST_SKIP() << "quantised weights are not rounded as those stored as F32 are: decoder_test compares these";
  for (const Types types : {Types::kQ4_K_M, Types::kEvery}) {
    for (const bool tied : {true, false}) {
      const TinyModel model = make_tiny_model(options_of(types, tied));
      const GgufFile stored = model.open(), plain = stored_as_f32(model).open();
      ASSERT_LT(stored.bytes().size(), plain.bytes().size() / 2);
      const auto logits = all_logits(stored, GetParam()), expected = all_logits(plain, GetParam());
      ASSERT_EQ(logits.size(), 70u);
      for (size_t row = 0; row < logits.size(); ++row)
        ASSERT_TRUE(same_bits(logits[row], expected[row])) << static_cast<int>(types) << " row " << row;
      EXPECT_FALSE(same_bits(logits[0], logits[1]));
    }
  }
}

TEST(StoredTypesAtLoad, ANormThatIsNoF32IsRefusedByName) {
  TinyModel model = make_tiny_model(options_of(Types::kF32, true));
  for (const GgufType type : {GgufType::kF16, GgufType::kBf16, GgufType::kQ8_0}) {
    const GgufFile good = model.open();
    GgufWriter writer;
    for (const TinyTensor& tensor : model.tensors) {
      const bool changed = tensor.name == "blk.1.ffn_norm.weight";
      const std::vector<std::byte> bytes(type == GgufType::kQ8_0 ? 34 * tensor.cols / 32 : 2 * tensor.cols);
      std::vector<uint64_t> shape{tensor.cols};
      if (tensor.rows > 1) shape.push_back(tensor.rows);
      writer.add_tensor(tensor.name, changed ? type : tensor.type, shape, changed ? bytes : tensor.bytes);
    }
    const GgufFile file = std::move(*GgufFile::from_bytes(writer.bytes()));
    const auto backend = make_backend({.isa = "scalar", .threads = 1});
    const Result<Weights> weights = load_weights(file, *read_model_config(good), *backend);
    ASSERT_FALSE(weights);
    EXPECT_EQ(weights.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(weights.error().detail.find("blk.1.ffn_norm.weight"), std::string::npos) << weights.error().detail;
    EXPECT_NE(weights.error().detail.find("F32"), std::string::npos) << weights.error().detail;
  }
}

}  // namespace
}  // namespace spillway
