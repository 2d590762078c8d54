#include "model/rope_config.h"

#include <fmt/format.h>

#include <cstring>
#include <string>

#include "common/quote.h"

namespace spillway {
namespace {

constexpr double kFactorMin = 1e-3, kFactorMax = 1e6;

// A factor without a type means linear scaling to llama.cpp (llama-model.cpp, "rope_freq_scale"), 0 means none, and an
// explicit "none" makes it void.
double linear_factor(MetadataReader& reader) {
  const std::string type = reader.optional_text("rope.scaling.type", "linear");
  if (reader.error() || type == "none") return 1.0;
  if (type != "linear") {
    reader.set_error(ErrorCode::kUnsupported,
                     fmt::format("{} is {}, supported are \"none\", \"linear\" and Llama 3.1's factors in tensor {}",
                                 reader.key("rope.scaling.type"), quote_foreign(type), kRopeFactorsTensor));
    return 1.0;
  }
  const char* const name = reader.has("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear";
  const double factor = reader.optional_real(name, 1.0, 0.0, kFactorMax);
  if (factor != 0.0 && factor < kFactorMin)
    reader.set_error(ErrorCode::kUnsupported, fmt::format("{} is {}, supported is {} to {}, or 0 for none",
                                                          reader.key(name), factor, kFactorMin, kFactorMax));
  return factor == 0.0 || reader.error() ? 1.0 : factor;
}

std::vector<float> read_divisors(const GgufFile& file, MetadataReader& reader, uint32_t head_dim) {
  const Result<const GgufTensor*> found = file.tensor(kRopeFactorsTensor);
  if (!found) return {};
  const GgufTensor& tensor = **found;
  std::vector<float> divisors(head_dim / 2);
  if (tensor.type != GgufType::kF32 || tensor.shape != std::vector<uint64_t>{head_dim / 2} ||
      tensor.bytes.size() != divisors.size() * sizeof(float)) {
    reader.set_error(ErrorCode::kUnsupported,
                     fmt::format("tensor {} is not F32 of one factor for each of the {} pairs of a head",
                                 kRopeFactorsTensor, head_dim / 2));
    return {};
  }
  std::memcpy(divisors.data(), tensor.bytes.data(), tensor.bytes.size());
  for (const float divisor : divisors)
    if (!(divisor >= kFactorMin && divisor <= kFactorMax))
      reader.set_error(ErrorCode::kUnsupported, fmt::format("tensor {} holds {}, supported is {} to {}",
                                                            kRopeFactorsTensor, divisor, kFactorMin, kFactorMax));
  return divisors;
}

}  // namespace

RopeSettings read_rope(const GgufFile& file, MetadataReader& reader, uint32_t head_dim) {
  RopeSettings rope;
  rope.theta_base = reader.optional_real("rope.freq_base", 10000.0, 1.0, 1e12);
  rope.position_scale = 1.0 / linear_factor(reader);
  rope.magnitude = reader.optional_real("rope.scaling.attn_factor", 1.0, kFactorMin, kFactorMax);
  rope.divisors = read_divisors(file, reader, head_dim);
  return rope;
}

}  // namespace spillway
