#include "tests/model/reference_forward.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>

namespace spillway {
namespace {

using Row = std::vector<double>;

class Reference {
 public:
  Reference(const TinyModel& model, ReferenceRounding rounding)
      : model_(model), options_(model.options), rounding_(rounding) {}

  std::vector<Row> logits(std::span<const TokenId> tokens) const {
    std::vector<Row> residual;
    const std::vector<float>& embedding = model_.values("token_embd.weight");
    for (const TokenId token : tokens) {
      const float* row = embedding.data() + size_t{token} * options_.hidden;
      residual.emplace_back(row, row + options_.hidden);
    }
    for (uint32_t layer = 0; layer < options_.layers; ++layer) {
      attend(layer, residual);
      for (Row& row : residual) feed_forward(layer, row);
    }
    std::vector<Row> logits;
    const char* classifier = options_.tied ? "token_embd.weight" : "output.weight";
    for (const Row& row : residual) logits.push_back(multiply(classifier, norm("output_norm.weight", row)));
    return logits;
  }

 private:
  double rounded(double value) const {
    if (rounding_ == ReferenceRounding::kNone) return value;
    const auto bits = std::bit_cast<uint32_t>(static_cast<float>(value));
    return std::bit_cast<float>((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
  }
  Row rounded(Row row) const {
    for (double& value : row) value = rounded(value);
    return row;
  }

  Row multiply(const std::string& name, const Row& input) const {
    const std::vector<float>& weight = model_.values(name);
    const bool as_stored = is_quantised(name);
    Row output(weight.size() / input.size());
    for (size_t n = 0; n < output.size(); ++n)
      for (size_t k = 0; k < input.size(); ++k) {
        const double value = weight[n * input.size() + k];
        output[n] += input[k] * (as_stored ? value : rounded(value));
      }
    return output;
  }

  // With all others of its matrix: q, k and v make one, and gate and up.
  bool is_quantised(const std::string& name) const {
    const std::string layer = name.substr(0, name.rfind('.', name.rfind('.') - 1) + 1);
    std::vector<std::string> parts{name};
    if (name.ends_with("_q.weight") || name.ends_with("_k.weight") || name.ends_with("_v.weight"))
      parts = {layer + "attn_q.weight", layer + "attn_k.weight", layer + "attn_v.weight"};
    if (name.ends_with("_gate.weight") || name.ends_with("_up.weight"))
      parts = {layer + "ffn_gate.weight", layer + "ffn_up.weight"};
    return std::ranges::none_of(model_.tensors, [&](const TinyTensor& tensor) {
      return std::ranges::count(parts, tensor.name) > 0 &&
             (tensor.type == GgufType::kF32 || tensor.type == GgufType::kF16 || tensor.type == GgufType::kBf16);
    });
  }

  Row normalised(const std::string& name, const Row& row) const {
    const std::vector<float>& weight = model_.values(name);
    double sum = 0;
    for (const double value : row) sum += value * value;
    const double scale = 1.0 / std::sqrt(sum / static_cast<double>(row.size()) + 1e-5);
    Row output(row.size());
    for (size_t i = 0; i < row.size(); ++i) output[i] = row[i] * scale * weight[i];
    return output;
  }
  Row norm(const std::string& name, const Row& row) const { return rounded(normalised(name, row)); }

  // A product of Q, K or V with what the architecture adds: Qwen 2 a bias, Qwen 3 a norm of every head of Q and K.
  Row project(uint32_t layer, char what, const Row& input) const {
    Row output = multiply(fmt::format("blk.{}.attn_{}.weight", layer, what), input);
    if (options_.architecture == "qwen2") {
      const std::vector<float>& bias = model_.values(fmt::format("blk.{}.attn_{}.bias", layer, what));
      for (size_t i = 0; i < output.size(); ++i) output[i] += bias[i];
    }
    if (options_.architecture != "qwen3" || what == 'v') return output;
    for (auto head = output.begin(); head != output.end(); head += options_.head_dim) {
      const Row scaled =
          normalised(fmt::format("blk.{}.attn_{}_norm.weight", layer, what), Row(head, head + options_.head_dim));
      std::copy(scaled.begin(), scaled.end(), head);
    }
    return output;
  }

  double angle(size_t pair, size_t position) const {
    double angle =
        static_cast<double>(position) * std::pow(10000.0, -2.0 * static_cast<double>(pair) / options_.head_dim);
    if (options_.rope_factor != 0) angle /= options_.rope_factor;
    return options_.rope_divisors.empty() ? angle : angle / options_.rope_divisors[pair];
  }

  // Pairs of every head: rows 2i and 2i + 1 in "llama", i and i + half in the others.
  Row rotate(Row row, size_t position) const {
    const size_t half = options_.head_dim / 2;
    const bool interleaved = options_.architecture == "llama";
    for (size_t head = 0; head < row.size(); head += options_.head_dim) {
      for (size_t pair = 0; pair < half; ++pair) {
        double& first = row[head + (interleaved ? 2 * pair : pair)];
        double& second = row[head + (interleaved ? 2 * pair + 1 : pair + half)];
        const double x = first, y = second, turn = angle(pair, position);
        first = x * std::cos(turn) - y * std::sin(turn);
        second = x * std::sin(turn) + y * std::cos(turn);
      }
    }
    return rounded(row);
  }

  void attend(uint32_t layer, std::vector<Row>& residual) const {
    const auto name = [&](const char* what) { return fmt::format("blk.{}.{}.weight", layer, what); };
    std::vector<Row> keys, values;
    for (size_t t = 0; t < residual.size(); ++t) {
      const Row input = norm(name("attn_norm"), residual[t]);
      const Row query = rotate(project(layer, 'q', input), t);
      keys.push_back(rotate(project(layer, 'k', input), t));
      values.push_back(rounded(project(layer, 'v', input)));
      const Row output = multiply(name("attn_output"), rounded(attention(query, keys, values)));
      for (size_t i = 0; i < output.size(); ++i) residual[t][i] += output[i];
    }
  }

  Row attention(const Row& query, const std::vector<Row>& keys, const std::vector<Row>& values) const {
    const size_t dim = options_.head_dim, group = options_.heads / options_.kv_heads;
    Row output(query.size());
    for (size_t head = 0; head < options_.heads; ++head) {
      const size_t q_at = head * dim, kv_at = head / group * dim;
      Row scores(keys.size());
      for (size_t j = 0; j < keys.size(); ++j) {
        for (size_t d = 0; d < dim; ++d) scores[j] += query[q_at + d] * keys[j][kv_at + d];
        scores[j] /= std::sqrt(static_cast<double>(dim));
      }
      const double highest = *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      for (double& score : scores) sum += score = std::exp(score - highest);
      for (size_t j = 0; j < keys.size(); ++j)
        for (size_t d = 0; d < dim; ++d) output[q_at + d] += scores[j] / sum * values[j][kv_at + d];
    }
    return output;
  }

  void feed_forward(uint32_t layer, Row& row) const {
    const auto name = [&](const char* what) { return fmt::format("blk.{}.{}.weight", layer, what); };
    const Row input = norm(name("ffn_norm"), row);
    Row gate = multiply(name("ffn_gate"), input);
    const Row up = multiply(name("ffn_up"), input);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1.0 + std::exp(-gate[i])) * up[i];
    const Row output = multiply(name("ffn_down"), rounded(gate));
    for (size_t i = 0; i < output.size(); ++i) row[i] += output[i];
  }

  const TinyModel& model_;
  const TinyModelOptions& options_;
  const ReferenceRounding rounding_;
};

}  // namespace

std::vector<std::vector<double>> reference_logits(const TinyModel& model, std::span<const TokenId> tokens,
                                                  ReferenceRounding rounding) {
  return Reference(model, rounding).logits(tokens);
}

}  // namespace spillway
