#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>

#include "tests/support/gguf_writer.h"
#include "tests/text/demo_tokenizer.h"
#include "text/tokenizer.h"

// Real vocabularies, which scripts/setup --tests puts into .cache/vocabularies, against ids that other programs made.
namespace spillway {
namespace {

using Ids = std::vector<TokenId>;
using Json = nlohmann::json;

std::string vocabulary_path(std::string_view name) {
  return SPILLWAY_VOCABULARIES "/ggml-vocab-" + std::string(name) + ".gguf";
}

const Tokenizer& vocabulary(const std::string& name) {
  static std::map<std::string, std::unique_ptr<Tokenizer>> made;
  std::unique_ptr<Tokenizer>& tokenizer = made[name];
  if (!tokenizer) {
    const Result<GgufFile> file = GgufFile::open(vocabulary_path(name));
    if (!file) throw std::runtime_error(file.error().detail + ": run scripts/setup --tests");
    Result<std::unique_ptr<Tokenizer>> read = Tokenizer::from_gguf(*file);
    if (!read) throw std::runtime_error(read.error().detail);
    tokenizer = std::move(*read);
  }
  return *tokenizer;
}

std::string read_whole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " is not there: run scripts/setup --tests");
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string spelled(const Tokenizer& tokenizer, const Ids& ids) {
  std::string text;
  for (const TokenId id : ids) text += tokenizer.token_bytes(id);
  return text;
}

class RealVocabulary : public ::testing::TestWithParam<const char*> {};

// llama.cpp's own tests: texts, and the ids that the models' original tokenisers gave.
TEST_P(RealVocabulary, EncodesLlamaCppsTestTextsToTheIdsOfTheOriginals) {
  constexpr std::string_view kBetween = "\n__ggml_vocab_test__\n";
  const Tokenizer& tokenizer = vocabulary(GetParam());
  const std::string inputs = read_whole(vocabulary_path(GetParam()) + ".inp");
  std::istringstream outputs(read_whole(vocabulary_path(GetParam()) + ".out"));
  size_t count = 0;
  for (size_t begin = 0; begin < inputs.size(); ++count) {
    const size_t end = std::min(inputs.find(kBetween, begin), inputs.size());
    const std::string text = inputs.substr(begin, end - begin);
    begin = end + kBetween.size();
    std::string line;
    ASSERT_TRUE(std::getline(outputs, line));
    std::istringstream numbers(line);
    const Ids expected{std::istream_iterator<TokenId>(numbers), {}};
    const Result<Ids> ids = tokenizer.encode(text, SpecialTokens::kAsText);
    ASSERT_TRUE(ids) << ids.error().detail;
    EXPECT_EQ(*ids, expected) << text;
  }
  EXPECT_GT(count, 40u);
}

INSTANTIATE_TEST_SUITE_P(All, RealVocabulary, ::testing::Values("gpt-2", "llama-bpe", "qwen2", "llama-spm", "phi-3"));

TEST(Vocabulary, RandomTextsHaveTheIdsOfTokenizersAndSentencePiece) {
  const Json goldens = read_test_data("vocabulary_goldens.json");
  for (const auto& [name, ids] : goldens["ids"].items()) {
    const Tokenizer& tokenizer = vocabulary(name);
    for (size_t index = 0; index < ids.size(); ++index) {
      const auto text = goldens["texts"][index].get<std::string>();
      const Result<Ids> encoded = tokenizer.encode(text, SpecialTokens::kAsText);
      ASSERT_TRUE(encoded) << encoded.error().detail;
      EXPECT_EQ(*encoded, ids[index].get<Ids>()) << name << ": " << goldens["texts"][index];
    }
  }
}

TEST(Vocabulary, TheTokensOfATextSpellIt) {
  const Json goldens = read_test_data("vocabulary_goldens.json");
  for (const auto& golden : goldens["texts"]) {
    const auto text = golden.get<std::string>();
    for (const char* const name : {"gpt-2", "llama-bpe", "qwen2"})
      EXPECT_EQ(spelled(vocabulary(name), vocabulary(name).encode(text, SpecialTokens::kAsText).value()), text) << name;
    // A space in front; and U+2581 is how a space is written.
    if (text.find("\xE2\x96\x81") != std::string::npos) continue;
    const Tokenizer& spm = vocabulary("llama-spm");
    EXPECT_EQ(spelled(spm, spm.encode(text, SpecialTokens::kAsText).value()), text.empty() ? "" : " " + text);
  }
}

// A small SentencePiece model made by its own trainer, with byte tokens and without.
TEST(Vocabulary, TrainedSentencePieceModelsEncodeAsInSentencePiece) {
  const Json goldens = read_test_data("spm_goldens.json");
  for (const Json& model : goldens["models"]) {
    GgufWriter writer;
    writer.add("tokenizer.ggml.model", "llama");
    writer.add_array("tokenizer.ggml.tokens", model["tokens"].get<std::vector<std::string>>());
    writer.add_array("tokenizer.ggml.scores", model["scores"].get<std::vector<float>>());
    writer.add_array("tokenizer.ggml.token_type", model["types"].get<std::vector<int32_t>>());
    writer.add("tokenizer.ggml.bos_token_id", uint32_t{1}).add("tokenizer.ggml.eos_token_id", uint32_t{2});
    const Result<GgufFile> file = GgufFile::from_bytes(writer.bytes());
    ASSERT_TRUE(file) << file.error().detail;
    const auto tokenizer = std::move(Tokenizer::from_gguf(*file).value());
    for (size_t index = 0; index < goldens["texts"].size(); ++index) {
      const auto text = goldens["texts"][index].get<std::string>();
      EXPECT_EQ(tokenizer->encode(text, SpecialTokens::kAsText).value(), model["ids"][index].get<Ids>())
          << goldens["texts"][index];
    }
  }
}

TEST(Vocabulary, BeginAndEndsAreThoseOfTheModel) {
  struct Case {
    const char* name;
    bool adds_begin;
    Ids ends;
  };
  const Case cases[] = {{"gpt-2", false, {50256}},
                        {"llama-bpe", true, {128001, 128009}},  // <|end_of_text|>, <|eot_id|>
                        {"qwen2", false, {151643, 151645}},     // <|endoftext|>, <|im_end|>; its "</s>" is text
                        {"llama-spm", true, {2}},
                        {"phi-3", true, {2, 32000, 32007}}};  // </s>, <|endoftext|>, <|end|>
  for (const Case& c : cases) {
    const Tokenizer& tokenizer = vocabulary(c.name);
    EXPECT_EQ(tokenizer.adds_begin_of_sequence(), c.adds_begin) << c.name;
    EXPECT_TRUE(std::ranges::equal(tokenizer.end_of_generation(), c.ends)) << c.name;
  }
  EXPECT_EQ(vocabulary("llama-bpe").encode_prompt("Hi", SpecialTokens::kParse).value().front(), 128000u);
  EXPECT_EQ(vocabulary("llama-spm").encode_prompt("", SpecialTokens::kParse).value(), (Ids{1}));
  // Once, also where the text spells it.
  EXPECT_EQ(vocabulary("llama-spm").encode_prompt("<s>Hi", SpecialTokens::kParse).value(),
            vocabulary("llama-spm").encode_prompt("Hi", SpecialTokens::kParse).value());
  EXPECT_FALSE(vocabulary("qwen2").is_special(128247));
}

// What a control token of a text is cut out of begins anew; parts of a text do not.
TEST(Vocabulary, PartsAreOneTextAndOnlyMatchedTokensCutIt) {
  const Tokenizer& spm = vocabulary("llama-spm");
  const auto ids = [&](std::vector<TextPart> parts) { return spm.encode_parts(parts).value(); };
  const auto text = SpecialTokens::kAsText, parse = SpecialTokens::kParse;
  EXPECT_EQ(ids({{"unbe", parse}, {"lievable", text}}), spm.encode("unbelievable", text).value());
  EXPECT_EQ(ids({{"a</", parse}, {"s>b", parse}}), spm.encode("a</s>b", text).value());
  EXPECT_EQ(ids({{"a", parse}, {"</s>", text}, {"b</s>", parse}}).back(), 2u);
  EXPECT_EQ(std::ranges::count(ids({{"a", parse}, {"</s>", text}, {"b</s>", parse}}), 2u), 1);
  EXPECT_EQ(spelled(spm, ids({{"a</s>b", parse}})), " a</s> b");
}

}  // namespace
}  // namespace spillway
