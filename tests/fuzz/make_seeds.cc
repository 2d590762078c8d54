#include <filesystem>
#include <fstream>
#include <string>

#include "common/check.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/node_script.h"
#include "transfer/message_codec.h"
#include "transfer/shm_handshake.h"
#include "transfer/shm_ring.h"

// Writes the binary seeds of the fuzz targets under FOLDER/<target>/: made, not stored, so that they follow the
// formats. Those that people can read, and inputs that once failed, are files in tests/fuzz/seeds.
namespace spillway {
namespace {

using Bytes = std::vector<std::byte>;

void store(const std::filesystem::path& folder, const std::string& name, const Bytes& bytes) {
  std::filesystem::create_directories(folder);
  std::ofstream file(folder / name, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw SetupError("cannot write " + (folder / name).string());
}

// The smallest file that is a whole model to config, tokeniser and template.
GgufWriter model_file(const std::string& chat_template) {
  const std::vector<std::string> tokens{"<|a|>",
                                        "<|im_end|>",
                                        "H",
                                        "e",
                                        "l",
                                        "o",
                                        "\xC4\xA0",
                                        "w",
                                        "r",
                                        "d",
                                        "1",
                                        "2",
                                        "Ã",
                                        "¶",
                                        "ð",
                                        "\xC4\xA0"
                                        "w",
                                        "ll",
                                        "llo",
                                        "lo"};
  std::vector<int32_t> types(tokens.size(), 1);
  types[0] = types[1] = 3;
  GgufWriter writer(8);
  writer.add("general.architecture", "llama").add("llama.block_count", uint32_t{1});
  writer.add("llama.context_length", uint32_t{128}).add("llama.embedding_length", uint32_t{32});
  writer.add("llama.feed_forward_length", uint32_t{32}).add("llama.attention.head_count", uint32_t{2});
  writer.add("llama.attention.head_count_kv", uint32_t{1}).add("llama.attention.key_length", uint32_t{16});
  writer.add("llama.attention.layer_norm_rms_epsilon", 1e-5f).add("llama.rope.dimension_count", uint32_t{16});
  writer.add("llama.rope.freq_base", 10000.0f).add("llama.rope.scaling.type", "none");
  writer.add("tokenizer.ggml.model", "gpt2").add("tokenizer.ggml.pre", "smollm");
  writer.add_array("tokenizer.ggml.tokens", tokens).add_array("tokenizer.ggml.token_type", types);
  writer.add_array("tokenizer.ggml.merges", std::vector<std::string>{"\xC4\xA0 w", "l l", "l o", "ll o"});
  writer.add("tokenizer.ggml.bos_token_id", uint32_t{0}).add("tokenizer.ggml.eos_token_id", uint32_t{1});
  if (!chat_template.empty()) writer.add("tokenizer.chat_template", chat_template);
  writer.add_tensor("token_embd.weight", GgufType::kQ4_1, {32, tokens.size()}, Bytes(20 * tokens.size()));
  return writer;
}

// The same with a SentencePiece vocabulary, without byte tokens: those alone would be longer than an input may be.
GgufWriter piece_file() {
  const std::vector<std::string> tokens{"<unk>", "<s>", "</s>", "<tool>", "[PAD]", "▁", "a", "b",
                                        "é",     "ab",  "▁a",   "▁ab",    "▁▁",    "H", "e", "l"};
  std::vector<int32_t> types(tokens.size(), 1);
  std::vector<float> scores;
  for (size_t token = 0; token < tokens.size(); ++token) scores.push_back(-static_cast<float>(token / 2));
  types[0] = 2, types[1] = types[2] = 3, types[3] = 4, types[4] = 5;
  GgufWriter writer(8);
  writer.add("tokenizer.ggml.model", "llama").add("tokenizer.ggml.add_space_prefix", true);
  writer.add_array("tokenizer.ggml.tokens", tokens).add_array("tokenizer.ggml.token_type", types);
  writer.add_array("tokenizer.ggml.scores", scores).add("tokenizer.ggml.unknown_token_id", uint32_t{0});
  writer.add("tokenizer.ggml.bos_token_id", uint32_t{1}).add("tokenizer.ggml.eos_token_id", uint32_t{2});
  return writer;
}

void make_gguf(const std::filesystem::path& folder) {
  store(folder, "pieces", piece_file().bytes());
  store(folder, "model", model_file("").bytes());
  store(folder, "chat_model",
        model_file("{% for m in messages %}<|a|>{{ m['content'] }}<|im_end|>{% endfor %}").bytes());
  GgufWriter values;
  values.add("u8", uint8_t{1}).add("i8", int8_t{-1}).add("u16", uint16_t{1}).add("i16", int16_t{-1});
  values.add("u32", uint32_t{1}).add("i32", int32_t{-1}).add("u64", uint64_t{1}).add("i64", int64_t{-1});
  values.add("f32", 1.0f).add("f64", 1.0).add("bool", true).add("text", "value");
  values.add_array("texts", std::vector<std::string>{"one", ""}).add_array("reals", std::vector<float>{0, 1});
  values.add_array("flags", std::vector<uint8_t>{0, 1});
  values.add_tensor("f32", GgufType::kF32, {4, 2}, Bytes(32)).add_tensor("q8", GgufType::kQ8_0, {32}, Bytes(34));
  values.add_tensor("bf16", GgufType::kBf16, {2, 2, 2}, Bytes(16));
  store(folder, "values", values.bytes());
  GgufWriter mixed;  // as Q4_K_M files mix them, and the types in which llama.cpp falls back for odd shapes
  mixed.add_tensor("q4_k", GgufType::kQ4_K, {512, 2}, Bytes(576))
      .add_tensor("q6_k", GgufType::kQ6_K, {256}, Bytes(210));
  mixed.add_tensor("q5_k", GgufType::kQ5_K, {256, 3}, Bytes(528)).add_tensor("q5_0", GgufType::kQ5_0, {64}, Bytes(44));
  mixed.add_tensor("q5_1", GgufType::kQ5_1, {32}, Bytes(24)).add_tensor("q4_0", GgufType::kQ4_0, {32, 2}, Bytes(36));
  mixed.add_tensor("f16", GgufType::kF16, {3}, Bytes(6));
  store(folder, "mixed", mixed.bytes());
  GgufWriter tensors(8);  // nearly nothing but offsets and shapes
  for (const char* const name : {"a", "b", "c", "d"}) tensors.add_tensor(name, GgufType::kF32, {4}, Bytes(16));
  store(folder, "tensors", tensors.bytes());
}

void make_messages(const std::filesystem::path& folder) {
  const Attempt about = script::attempt();
  std::vector<Message> messages = script::every_message(about, 3);
  Hello hello = script::hello(Role::kDecode, script::kDecodeBoot);
  hello.name = "decode 0";
  hello.control_endpoint = "ipc:///tmp/control";
  hello.colocates = true;
  messages.emplace_back(hello);
  hello.protocol_version = kProtocolVersion + 1;
  messages.emplace_back(hello);
  Work work = script::work(about, 5);
  work.sampling = {.temperature = 0.5f, .seed = 9, .top_k = 4, .top_p = 0.5f, .min_tokens = 2};
  work.sampling.logit_bias = {{1, -100.0f}, {2, 3.5f}};
  messages.emplace_back(Prefill{work, script::kDecodeBoot});
  messages.emplace_back(Token{about, 1, 7, FinishReason::kLength, 99, {1, 2, 3, 4, 5}});
  for (size_t at = 0; at < messages.size(); ++at) {
    if (auto* const lease = std::get_if<Lease>(&messages[at])) lease->duration_ms %= kLeaseMsMax;
    store(folder, std::to_string(at) + "_" + std::string(message_name(messages[at])),
          encode_message(script::kGatewayBoot, messages[at]));
  }
}

// What `send_greeting` puts into a packet: magic, token, the endpoint's length, and the endpoint in all its room.
Bytes greeting_packet() {
  ShmEndpoint endpoint;
  endpoint.path = "/run/bulk";
  const Bytes own = endpoint.bytes();
  Bytes packet;
  for (const char c : std::string_view("SPWSHM01")) packet.push_back(static_cast<std::byte>(c));
  packet.insert(packet.end(), endpoint.token.begin(), endpoint.token.end());
  packet.insert(packet.end(), {static_cast<std::byte>(own.size()), std::byte{}, std::byte{}, std::byte{}});
  packet.insert(packet.end(), own.begin(), own.end());
  packet.resize(8 + 16 + 4 + 124);
  return packet;
}

// Two frames as a writer leaves them, with the head that check_ring() reads.
Bytes ring_input() {
  ShmWriter writer = std::move(ShmWriter::make(2 * kPageBytes).value());
  FrameHeader header;
  const Bytes payload(100, std::byte{7});
  header.bytes = 100;
  writer.write(SendId{1}, header, payload);
  writer.write(SendId{2}, header, payload);
  const ShmMapping mapping = std::move(ShmMapping::map(writer.fd()).value());
  Bytes input{std::byte{2}, std::byte{1}, std::byte{0}, std::byte{1}};
  const auto memory = mapping.at(0, 512);
  input.insert(input.end(), memory.begin(), memory.end());
  return input;
}

void make_shm(const std::filesystem::path& folder) {
  ShmEndpoint endpoint;
  endpoint.path = "/run/bulk-1-2.sock";
  const auto with_kind = [](uint8_t kind, Bytes bytes) {
    bytes.insert(bytes.begin(), static_cast<std::byte>(kind));
    return bytes;
  };
  store(folder, "endpoint", with_kind(0, endpoint.bytes()));
  store(folder, "greeting_without_ring", with_kind(1, greeting_packet()));
  store(folder, "greeting", with_kind(2, greeting_packet()));
  store(folder, "ring", with_kind(3, ring_input()));
}

}  // namespace
}  // namespace spillway

int main(int argc, char** argv) {
  CHECK(argc == 2);
  const std::filesystem::path folder(argv[1]);
  spillway::make_gguf(folder / "gguf");
  spillway::make_messages(folder / "message");
  spillway::make_shm(folder / "shm");
}
