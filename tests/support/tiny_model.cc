#include "tests/support/tiny_model.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <span>

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
  const auto key = [&](const char* name) { return fmt::format("{}.{}", options.architecture, name); };
  writer.add("general.architecture", options.architecture)
      .add(key("block_count"), options.layers)
      .add(key("context_length"), options.context)
      .add(key("embedding_length"), options.hidden)
      .add(key("feed_forward_length"), options.feed_forward)
      .add(key("attention.head_count"), options.heads)
      .add(key("attention.head_count_kv"), options.kv_heads)
      .add(key("attention.key_length"), options.head_dim)
      .add(key("attention.value_length"), options.head_dim)
      .add(key("attention.layer_norm_rms_epsilon"), 1e-5f)
      .add(key("rope.dimension_count"), options.head_dim)
      .add(key("rope.freq_base"), 10000.0f)
      .add(key("vocab_size"), TinyModel::kTinyVocab);
  if (options.rope_type != nullptr) writer.add(key("rope.scaling.type"), std::string(options.rope_type));
  if (options.rope_factor != 0) writer.add(key(options.rope_factor_key), options.rope_factor);
  if (options.sliding_window != 0) writer.add(key("attention.sliding_window"), options.sliding_window);
}

// Draws tensors one after the other, each of the type that the options say.
class Draw {
 public:
  Draw(const TinyModelOptions& options, std::vector<TinyTensor>& tensors)
      : options_(options), tensors_(tensors), random_(options.seed) {}

  // Products of unit inputs come out with a deviation of `gain`.
  void matrix(std::string name, uint32_t rows, uint32_t cols, double gain) {
    const GgufType type = type_of(name);
    tensors_.push_back(draw_matrix(random_, std::move(name), type, rows, cols, gain / std::sqrt(cols)));
  }
  void norm(std::string name) { vector(std::move(name), options_.hidden, 0.7, 1.3); }
  void vector(std::string name, uint32_t cols, double low, double high) {
    tensors_.push_back(draw_vector(random_, std::move(name), cols, low, high));
  }

 private:
  GgufType type_of(std::string_view name) {
    using Types = TinyModelOptions::Types;
    constexpr std::array kCycle{GgufType::kQ4_1, GgufType::kQ8_0, GgufType::kF32, GgufType::kBf16, GgufType::kQ4_1};
    constexpr std::array kEvery{GgufType::kQ6_K, GgufType::kQ5_0, GgufType::kQ4_K, GgufType::kF16,
                                GgufType::kQ5_1, GgufType::kQ4_0, GgufType::kQ5_K, GgufType::kQ4_1,
                                GgufType::kBf16, GgufType::kQ8_0, GgufType::kF32};
    const auto is = [&](const char* part) { return name.find(part) != std::string_view::npos; };
    switch (options_.types) {
      case Types::kF32: return GgufType::kF32;
      case Types::kBf16: return GgufType::kBf16;
      case Types::kQ8_0: return GgufType::kQ8_0;
      case Types::kQ4_1: return GgufType::kQ4_1;
      case Types::kMixed: return kCycle[drawn_++ % kCycle.size()];
      case Types::kEvery: return kEvery[drawn_++ % kEvery.size()];
      case Types::kQ4_K_M:
        return is("token_embd") || is("attn_v") || is("ffn_down") ? GgufType::kQ6_K : GgufType::kQ4_K;
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
  const bool bias = options.architecture == "qwen2", qk_norm = options.architecture == "qwen3";
  draw.matrix("token_embd.weight", TinyModel::kTinyVocab, options.hidden, 1.0);
  for (uint32_t layer = 0; layer < options.layers; ++layer) {
    const auto name = [&](const char* what) { return fmt::format("blk.{}.{}.weight", layer, what); };
    draw.norm(name("attn_norm"));
    draw.matrix(name("attn_q"), attention, options.hidden, 1.5);
    draw.matrix(name("attn_k"), kv, options.hidden, 1.5);
    draw.matrix(name("attn_v"), kv, options.hidden, 1.0);
    for (const char* what : {"q", "k", "v"})
      if (bias) draw.vector(fmt::format("blk.{}.attn_{}.bias", layer, what), *what == 'q' ? attention : kv, -1.5, 1.5);
    for (const char* what : {"attn_q_norm", "attn_k_norm"})
      if (qk_norm) draw.vector(name(what), options.head_dim, 0.3, 1.8);
    draw.matrix(name("attn_output"), options.hidden, attention, 0.5);
    draw.norm(name("ffn_norm"));
    draw.matrix(name("ffn_gate"), options.feed_forward, options.hidden, 1.0);
    draw.matrix(name("ffn_up"), options.feed_forward, options.hidden, 1.0);
    draw.matrix(name("ffn_down"), options.hidden, options.feed_forward, 0.5);
  }
  draw.norm("output_norm.weight");
  if (!options.rope_divisors.empty()) tensors.push_back(vector_of("rope_freqs.weight", options.rope_divisors));
  if (!options.tied) draw.matrix("output.weight", TinyModel::kTinyVocab, options.hidden, 1.0);
}

std::vector<std::byte> file_of(const TinyModel& model) {
  GgufWriter writer;
  add_metadata(writer, model.options);
  add_tokenizer(writer);
  for (const TinyTensor& tensor : model.tensors) {
    std::vector<uint64_t> shape{tensor.cols};
    if (tensor.rows > 1) shape.push_back(tensor.rows);
    writer.add_tensor(tensor.name, tensor.type, shape, tensor.bytes);
  }
  return writer.bytes();
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
    const auto tensor = std::ranges::find(model.tensors, options.poisoned_tensor, &TinyTensor::name);
    CHECK(tensor != model.tensors.end() && tensor->type == GgufType::kF32);
    tensor->values[0] = options.poison;
    std::memcpy(tensor->bytes.data(), tensor->values.data(), sizeof(float));
  }
  model.gguf = file_of(model);
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
