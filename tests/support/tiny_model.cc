#include "tests/support/tiny_model.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "common/check.h"
#include "common/unique_fd.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/tiny_weights.h"

namespace spillway {
namespace {

constexpr uint32_t kEndOfText = 0, kImStart = 1, kImEnd = 2, kSpecialTokens = 3;
constexpr const char* kChatTemplate =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

// The printable stand-in of a byte in byte-level BPE (GPT-2), as UTF-8.
std::string stand_in(uint32_t byte) {
  const auto itself = [](uint32_t b) { return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae; };
  uint32_t code_point = byte;
  if (!itself(byte)) {
    code_point = 256;
    for (uint32_t below = 0; below < byte; ++below) code_point += itself(below) ? 0 : 1;
  }
  if (code_point < 0x80) return {static_cast<char>(code_point)};
  return {static_cast<char>(0xc0 | (code_point >> 6)), static_cast<char>(0x80 | (code_point & 0x3f))};
}

// 41 merges of English; "_" stands for the space.
constexpr std::array kMerges{"_ t",   "h e", "i n",  "a t", "o n", "e r",  "r e", "_ a",  "_ s",   "e n", "o r",
                             "_t he", "o u", "_ o",  "e s", "_ w", "i s",  "_ c", "_ b",  "in g",  "a n", "_ f",
                             "_ p",   "e d", "_a n", "l l", "a r", "_o f", "_ m", "_ in", "_an d", "i t", "a l",
                             "_t o",  "_ h", "_ d",  "i c", "_ l", "k e",  "e y", "_ n"};

std::string spelled(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == '_' ? stand_in(' ') : std::string(1, c);
  return out;
}

void add_tokenizer(GgufWriter& writer) {
  std::vector<std::string> tokens{"<|endoftext|>", "<|im_start|>", "<|im_end|>"}, merges;
  for (uint32_t byte = 0; byte < 256; ++byte) tokens.push_back(stand_in(byte));
  for (const std::string_view merge : kMerges) {
    merges.push_back(spelled(merge));
    const size_t space = merge.find(' ');
    tokens.push_back(spelled(std::string(merge.substr(0, space)) + std::string(merge.substr(space + 1))));
  }
  CHECK(tokens.size() == TinyModel::kTinyVocab);
  constexpr int32_t kNormal = 1, kControl = 3;
  std::vector<int32_t> types(tokens.size(), kNormal);
  std::fill_n(types.begin(), kSpecialTokens, kControl);
  writer.add("tokenizer.ggml.model", std::string("gpt2"))
      .add("tokenizer.ggml.pre", std::string("smollm"))
      .add_array("tokenizer.ggml.tokens", tokens)
      .add_array("tokenizer.ggml.token_type", types)
      .add_array("tokenizer.ggml.merges", merges)
      .add("tokenizer.ggml.bos_token_id", kImStart)
      .add("tokenizer.ggml.eos_token_id", kImEnd)
      .add("tokenizer.ggml.unknown_token_id", kEndOfText)
      .add("tokenizer.chat_template", std::string(kChatTemplate));
}

void add_metadata(GgufWriter& writer, const TinyModelOptions& options) {
  writer.add("general.architecture", std::string("llama"))
      .add("llama.block_count", options.layers)
      .add("llama.context_length", options.context)
      .add("llama.embedding_length", options.hidden)
      .add("llama.feed_forward_length", options.feed_forward)
      .add("llama.attention.head_count", options.heads)
      .add("llama.attention.head_count_kv", options.kv_heads)
      .add("llama.attention.key_length", options.head_dim)
      .add("llama.attention.value_length", options.head_dim)
      .add("llama.attention.layer_norm_rms_epsilon", 1e-5f)
      .add("llama.rope.dimension_count", options.head_dim)
      .add("llama.rope.freq_base", 10000.0f)
      .add("llama.vocab_size", TinyModel::kTinyVocab);
  if (options.rope_factor == 0)
    writer.add("llama.rope.scaling.type", std::string("none"));
  else
    writer.add(options.rope_factor_key, options.rope_factor);
}

// Draws tensors one after the other, each of the type that the options say.
class Draw {
 public:
  Draw(const TinyModelOptions& options, std::vector<TinyTensor>& tensors)
      : options_(options), tensors_(tensors), random_(options.seed) {}

  // Products of unit inputs come out with a deviation of `gain`.
  void matrix(std::string name, uint32_t rows, uint32_t cols, double gain) {
    tensors_.push_back(draw_matrix(random_, std::move(name), next_type(), rows, cols, gain / std::sqrt(cols)));
  }
  void norm(std::string name) { tensors_.push_back(draw_norm(random_, std::move(name), options_.hidden)); }

 private:
  GgufType next_type() {
    using Types = TinyModelOptions::Types;
    constexpr std::array kCycle{GgufType::kQ4_1, GgufType::kQ8_0, GgufType::kF32, GgufType::kBf16, GgufType::kQ4_1};
    switch (options_.types) {
      case Types::kF32: return GgufType::kF32;
      case Types::kBf16: return GgufType::kBf16;
      case Types::kQ8_0: return GgufType::kQ8_0;
      case Types::kQ4_1: return GgufType::kQ4_1;
      case Types::kMixed: return kCycle[drawn_++ % kCycle.size()];
    }
    CHECK(false);
  }
  const TinyModelOptions& options_;
  std::vector<TinyTensor>& tensors_;
  TinyRandom random_;
  size_t drawn_ = 0;
};

void draw_tensors(const TinyModelOptions& options, std::vector<TinyTensor>& tensors) {
  Draw draw(options, tensors);
  const uint32_t attention = options.heads * options.head_dim, kv = options.kv_heads * options.head_dim;
  draw.matrix("token_embd.weight", TinyModel::kTinyVocab, options.hidden, 1.0);
  for (uint32_t layer = 0; layer < options.layers; ++layer) {
    const auto name = [&](const char* what) { return fmt::format("blk.{}.{}.weight", layer, what); };
    draw.norm(name("attn_norm"));
    draw.matrix(name("attn_q"), attention, options.hidden, 1.5);
    draw.matrix(name("attn_k"), kv, options.hidden, 1.5);
    draw.matrix(name("attn_v"), kv, options.hidden, 1.0);
    draw.matrix(name("attn_output"), options.hidden, attention, 0.5);
    draw.norm(name("ffn_norm"));
    draw.matrix(name("ffn_gate"), options.feed_forward, options.hidden, 1.0);
    draw.matrix(name("ffn_up"), options.feed_forward, options.hidden, 1.0);
    draw.matrix(name("ffn_down"), options.hidden, options.feed_forward, 0.5);
  }
  draw.norm("output_norm.weight");
  if (!options.tied) draw.matrix("output.weight", TinyModel::kTinyVocab, options.hidden, 1.0);
}

}  // namespace

const std::vector<float>& TinyModel::values(std::string_view name) const {
  const auto found =
      std::find_if(tensors.begin(), tensors.end(), [&](const TinyTensor& tensor) { return tensor.name == name; });
  CHECK(found != tensors.end());
  return found->values;
}

GgufFile TinyModel::open() const {
  Result<GgufFile> file = GgufFile::from_bytes(gguf);
  CHECK(file.has_value());
  return std::move(*file);
}

TinyModel make_tiny_model(const TinyModelOptions& options) {
  TinyModel model{.options = options, .tensors = {}, .gguf = {}};
  draw_tensors(options, model.tensors);
  if (options.poisoned) {
    const auto norm = std::find_if(model.tensors.begin(), model.tensors.end(),
                                   [](const TinyTensor& tensor) { return tensor.name == "output_norm.weight"; });
    norm->values[0] = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(norm->bytes.data(), norm->values.data(), sizeof(float));
  }
  GgufWriter writer;
  add_metadata(writer, options);
  add_tokenizer(writer);
  for (const TinyTensor& tensor : model.tensors) {
    std::vector<uint64_t> shape{tensor.cols};
    if (tensor.rows > 1) shape.push_back(tensor.rows);
    writer.add_tensor(tensor.name, tensor.type, shape, tensor.bytes);
  }
  model.gguf = writer.bytes();
  return model;
}

TinyModelFile::TinyModelFile(const TinyModelOptions& options)
    : path_((std::filesystem::temp_directory_path() / "spillway_tiny_XXXXXX").string()) {
  const UniqueFd file(::mkstemp(path_.data()));
  CHECK(file.get() >= 0);
  const std::vector<std::byte> bytes = make_tiny_model(options).gguf;
  CHECK(::write(file.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
}

TinyModelFile::~TinyModelFile() { ::unlink(path_.c_str()); }

}  // namespace spillway
