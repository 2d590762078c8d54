// Types that a model file may store, and may not; what the decoder makes of each, decoder_test.cc compares.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/make_backend.h"
#include "tests/model/decoder_harness.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/tiny_model.h"

namespace spillway {
namespace {

TEST(StoredTypes, ANormThatIsNoF32IsRefusedByName) {
  TinyModel model = make_tiny_model({.seed = 31, .types = TinyModelOptions::Types::kF32, .tied = true});
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
