#include <benchmark/benchmark.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"

// Bytes of text a second: cutting into words, encoding, and copying as the machine's own limit. The text is this
// project's own documents, 1 MiB of them; the vocabularies are those that scripts/setup --tests fetches.
namespace spillway {
namespace {

const std::string& text() {
  static const std::string made = [] {
    std::ifstream file(SPILLWAY_ROOT "/ARCHITECTURE.md", std::ios::binary);
    const std::string document{std::istreambuf_iterator<char>(file), {}};
    std::string all;
    while (all.size() < size_t{1} << 20 && !document.empty()) all += document;
    return all;
  }();
  return made;
}

const Tokenizer* vocabulary(const std::string& name) {
  static std::map<std::string, std::unique_ptr<Tokenizer>> made;
  std::unique_ptr<Tokenizer>& tokenizer = made[name];
  if (!tokenizer) {
    const Result<GgufFile> file = GgufFile::open(SPILLWAY_ROOT "/.cache/vocabularies/ggml-vocab-" + name + ".gguf");
    if (file) tokenizer = std::move(Tokenizer::from_gguf(*file).value());
  }
  return tokenizer.get();
}

void finish(benchmark::State& state) {
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text().size()));
}

void copy_text(benchmark::State& state) {
  std::string to(text().size(), '\0');
  for (auto _ : state) {
    std::memcpy(to.data(), text().data(), to.size());
    benchmark::ClobberMemory();
  }
  finish(state);
}
BENCHMARK(copy_text);

void split(benchmark::State& state, const std::string& name) {
  const PreTokenizer pre_tokenizer = std::move(PreTokenizer::create(name).value());
  std::vector<std::string_view> words;
  for (auto _ : state) {
    words.clear();
    if (!pre_tokenizer.split(text(), words)) state.SkipWithError("the text cannot be cut");
  }
  finish(state);
}
BENCHMARK_CAPTURE(split, gpt2, "gpt-2");
BENCHMARK_CAPTURE(split, smollm, "smollm");
BENCHMARK_CAPTURE(split, llama_bpe, "llama-bpe");
BENCHMARK_CAPTURE(split, qwen2, "qwen2");

void encode(benchmark::State& state, const std::string& name) {
  const Tokenizer* const tokenizer = vocabulary(name);
  if (tokenizer == nullptr) return state.SkipWithError("run scripts/setup --tests");
  size_t tokens = 0;
  for (auto _ : state) tokens = tokenizer->encode(text(), SpecialTokens::kParse).value().size();
  state.counters["bytes_a_token"] = static_cast<double>(text().size()) / static_cast<double>(tokens);
  finish(state);
}
BENCHMARK_CAPTURE(encode, gpt2, "gpt-2")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, llama_bpe, "llama-bpe")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, qwen2, "qwen2")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, llama_spm, "llama-spm")->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace spillway

BENCHMARK_MAIN();
