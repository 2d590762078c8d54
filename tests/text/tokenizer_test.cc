#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <random>

#include "tests/support/gguf_writer.h"
#include "tests/text/demo_tokenizer.h"
#include "text/utf8.h"

namespace spillway {
namespace {

using Ids = std::vector<TokenId>;

Ids encoded(std::string_view text, SpecialTokens special = SpecialTokens::kAsText) {
  Result<Ids> ids = demo_tokenizer().encode(text, special);
  if (!ids) throw std::runtime_error(ids.error().detail);
  return std::move(*ids);
}

std::string decoded(const Tokenizer& tokenizer, const Ids& ids) {
  std::string bytes;
  for (const TokenId id : ids) bytes += tokenizer.token_bytes(id);
  return bytes;
}

TEST(Tokenizer, GoldenStringsEncodeToTheGoldenIdsAndBack) {
  const nlohmann::json goldens = read_test_data("tokenizer.json");
  ASSERT_EQ(goldens["cases"].size(), 40u);
  for (const auto& golden : goldens["cases"]) {
    const auto text = golden["text"].get<std::string>();
    EXPECT_EQ(encoded(text), golden["ids"].get<Ids>()) << text;
    EXPECT_EQ(encoded(text, SpecialTokens::kParse), golden["ids_special"].get<Ids>()) << text;
    EXPECT_EQ(decoded(demo_tokenizer(), golden["ids"].get<Ids>()), text);
    EXPECT_EQ(decoded(demo_tokenizer(), golden["ids_special"].get<Ids>()), text);
  }
}

TEST(Tokenizer, SpecialTokensAreParsedOnlyWhereAsked) {
  EXPECT_EQ(encoded("<|im_start|>", SpecialTokens::kParse), (Ids{1}));
  EXPECT_EQ(encoded("<|im_start|><|im_end|>", SpecialTokens::kParse), (Ids{1, 2}));
  const Ids plain = encoded("<|im_start|>");
  EXPECT_GT(plain.size(), 1u);
  for (const TokenId id : plain) EXPECT_FALSE(demo_tokenizer().is_special(id));
  EXPECT_EQ(encoded("<|im_start|", SpecialTokens::kParse), encoded("<|im_start|"));  // nearly one
  EXPECT_EQ(encoded("<<|im_end|>|>", SpecialTokens::kParse)[1], 2u);
  EXPECT_TRUE(demo_tokenizer().is_special(1));
  EXPECT_EQ(demo_tokenizer().end_of_sequence(), 2u);
  EXPECT_EQ(demo_tokenizer().begin_of_sequence(), 1u);
  EXPECT_EQ(demo_tokenizer().vocab_size(), 49152u);
}

TEST(Tokenizer, RandomTextDecodesToItselfLessTheBytesTheVocabularyLacks) {
  const char32_t pool[] = {U' ',      U' ',      U'\n',     U'a',      U'e',      U't',          U'7',
                           U'\'',     U'.',      U'\x04',   U'\x7F',   U'\x85',   U'\xA0',       U'\xE9',
                           U'\u0300', U'\u180E', U'\u3000', U'\u4E2D', U'\uFFFD', U'\U0001F600', U'\U00040000'};
  std::mt19937 random(5);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (uint32_t count = random() % 30; count > 0; --count) append_utf8(text, pool[random() % std::size(pool)]);
    std::string kept;  // U+0004 and the first byte of U+40000 are not in the vocabulary
    for (const char byte : text)
      if (byte != '\x04' && byte != '\xF1') kept += byte;
    EXPECT_EQ(decoded(demo_tokenizer(), encoded(text)), kept);
  }
}

TEST(Tokenizer, InvalidUtf8IsAnErrorWithItsPlace) {
  const std::string bad[] = {"abc\xFF",     "abc\xC0\x80", "abc\xED\xA0\x80", "abc\xF4\x90\x80\x80",
                             "abc\xE2\x82", "abc\x80"};
  for (const std::string& text : bad) {
    const Result<Ids> ids = demo_tokenizer().encode(text, SpecialTokens::kParse);
    ASSERT_FALSE(ids);
    EXPECT_EQ(ids.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(ids.error().detail.find("UTF-8: byte 3 "), std::string::npos) << ids.error().detail;
  }
}

TEST(Tokenizer, TextAboveTheBoundIsRefused) {
  const Result<Ids> ids =
      demo_tokenizer().encode(std::string(Tokenizer::text_bytes_max() + 1, 'a'), SpecialTokens::kAsText);
  ASSERT_FALSE(ids);
  EXPECT_EQ(ids.error().code, ErrorCode::kInvalidArgument);
}

TEST(Tokenizer, ABoundOnTokensEndsTheWorkSoonBehindIt) {
  std::string text = "<|im_start|>user\n";
  while (text.size() < (size_t{4} << 20) - 100) text += "The history of computing, 1 of 7; ";
  const Ids all = encoded(text, SpecialTokens::kParse);
  const TextPart part{text, SpecialTokens::kParse};
  double begin = cpu_seconds();
  const Ids first = demo_tokenizer().encode_up_to({&part, 1}, 100).value();
  const double seconds = cpu_seconds() - begin;
  ASSERT_GT(first.size(), 100u);
  ASSERT_LT(first.size(), 5000u);
  EXPECT_TRUE(std::equal(first.begin(), first.end(), all.begin()));
  begin = cpu_seconds();
  EXPECT_EQ(demo_tokenizer().encode_up_to({&part, 1}, all.size()).value(), all);
  EXPECT_LT(seconds, (cpu_seconds() - begin) / 4);
  const TextPart specials{"<|im_end|><|im_end|><|im_end|>", SpecialTokens::kParse};
  EXPECT_EQ(demo_tokenizer().encode_up_to({&specials, 1}, 1).value(), (Ids{2, 2}));
}

TEST(Tokenizer, NoTextHasFewerTokensThanItsBytesTell) {
  const auto least = [](std::string_view text) {
    const TextPart parts[] = {{text.substr(0, text.size() / 2)}, {text.substr(text.size() / 2)}};
    return demo_tokenizer().tokens_at_least(parts);
  };
  std::string longest;
  for (TokenId token = 0; token < demo_tokenizer().vocab_size(); ++token)
    if (const std::string_view bytes = demo_tokenizer().token_bytes(token); bytes.size() > longest.size())
      longest = bytes;
  EXPECT_EQ(encoded(longest).size(), 1u);
  EXPECT_EQ(least(longest), 1u);
  EXPECT_EQ(least(longest + "a"), 2u);
  EXPECT_EQ(least(std::string(longest.size() * 1000, 'a')), 1000u);
  const std::string vanishing(100000, '\x04');  // not in the vocabulary
  EXPECT_TRUE(encoded(vanishing).empty());
  EXPECT_EQ(least(vanishing), 0u);
}

// Each would take minutes or hours in a tokenizer that is quadratic in the length of a word, of a run of spaces or of a
// run of beginnings of special tokens. The limit leaves room for the sanitizers.
TEST(Tokenizer, ALongRunOfAnythingEndsInSeconds) {
  for (const std::string_view unit :
       {"a", " ", "\n", " \n", "\xE3\x80\x80", "<", "<|im_start|", "<|im_end|>", "'", "1", "\xF0\x9F\x98\x80"}) {
    const size_t bytes = size_t{1} << (unit == "a" ? 20 : 18);
    std::string text;
    while (text.size() < bytes) text += unit;
    text += "x";
    const double begin = cpu_seconds();
    const Ids ids = encoded(text, SpecialTokens::kParse);
    EXPECT_LT(cpu_seconds() - begin, 10.0) << unit;
    EXPECT_TRUE(decoded(demo_tokenizer(), ids) == text) << unit;
  }
}

// A vocabulary of a few tokens; `change` spoils it.
struct SmallVocabulary {
  std::string model = "gpt2", pre = "smollm";
  std::vector<std::string> tokens = {"<e>", "<e>>", "<", "e", ">", "a", "b", "c", "ab", "bc", "abc", "\xC4\xA0"};
  std::vector<int32_t> types = {3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  std::vector<std::string> merges = {"b c", "a b", "a bc"};
  std::optional<uint32_t> bos = 0;
  uint32_t eos = 0;
  uint64_t rows = 12;
  std::function<void(GgufWriter&)> more = nullptr;

  Result<std::unique_ptr<Tokenizer>> make() const {
    GgufWriter writer;
    writer.add("tokenizer.ggml.model", model).add("tokenizer.ggml.pre", pre);
    writer.add_array("tokenizer.ggml.tokens", tokens).add_array("tokenizer.ggml.token_type", types);
    writer.add_array("tokenizer.ggml.merges", merges);
    if (bos) writer.add("tokenizer.ggml.bos_token_id", *bos);
    writer.add("tokenizer.ggml.eos_token_id", eos);
    if (more) more(writer);
    writer.add_tensor("token_embd.weight", GgufType::kF32, {1, rows}, std::vector<std::byte>(4 * rows));
    const Result<GgufFile> file = GgufFile::from_bytes(writer.bytes());
    if (!file) throw std::runtime_error(file.error().detail);
    return Tokenizer::from_gguf(*file);
  }
};

TEST(Tokenizer, MergesGoByRankTheLongestSpecialTokenWinsAndUnknownBytesVanish) {
  const auto tokenizer = std::move(SmallVocabulary{}.make().value());
  const auto ids = [&](std::string_view text) { return tokenizer->encode(text, SpecialTokens::kParse).value(); };
  EXPECT_EQ(ids("abc"), (Ids{10}));  // b c first, then a bc; a b never
  EXPECT_EQ(ids("abab"), (Ids{8, 8}));
  EXPECT_EQ(ids(" abc"), (Ids{11, 10}));
  EXPECT_EQ(ids("azb"), (Ids{8}));  // z is unknown: its neighbours merge
  EXPECT_EQ(ids("zzz"), Ids{});
  EXPECT_EQ(ids("a<e>>b"), (Ids{5, 1, 6}));
  EXPECT_EQ(ids("<e><e>>>"), (Ids{0, 1, 4}));
  EXPECT_EQ(tokenizer->encode("<e>", SpecialTokens::kAsText).value(), (Ids{2, 3, 4}));
}

TEST(Tokenizer, MetadataThatContradictsItselfIsRefusedByName) {
  const auto refused = [](auto spoil, ErrorCode code, std::string_view part) {
    SmallVocabulary vocabulary;
    spoil(vocabulary);
    const Result<std::unique_ptr<Tokenizer>> made = vocabulary.make();
    ASSERT_FALSE(made) << part;
    EXPECT_EQ(made.error().code, code) << made.error().detail;
    EXPECT_NE(made.error().detail.find(part), std::string::npos) << made.error().detail;
  };
  using V = SmallVocabulary;
  refused([](V& v) { v.model = "bert"; }, ErrorCode::kUnsupported, "\"bert\"; supported are \"gpt2\" and \"llama\"");
  refused([](V& v) { v.pre = "tekken"; }, ErrorCode::kUnsupported, "\"tekken\"; supported are gpt-2, llama-bpe, qwen2");
  refused([](V& v) { v.types[3] = 6; }, ErrorCode::kUnsupported, "token 3 has type 6");
  refused([](V& v) { v.types[3] = 0; }, ErrorCode::kUnsupported, "token 3 has type 0");
  refused([](V& v) { v.types.pop_back(); }, ErrorCode::kCorrupt, "token_type 11");
  refused([](V& v) { v.tokens[5] = " a"; }, ErrorCode::kCorrupt, "token 5");
  refused([](V& v) { v.tokens[5] = "\xFF"; }, ErrorCode::kCorrupt, "token 5");
  refused([](V& v) { v.tokens[5] = ""; }, ErrorCode::kCorrupt, "token 5");
  refused([](V& v) { v.tokens[0] = ""; }, ErrorCode::kUnsupported, "control token 0");
  refused([](V& v) { v.tokens[0] = std::string(257, 'x'); }, ErrorCode::kUnsupported, "control token 0");
  refused([](V& v) { v.tokens[0] = "<\xC3"; }, ErrorCode::kUnsupported, "control token 0 is not UTF-8");
  refused([](V& v) { v.tokens[6] = "a"; }, ErrorCode::kCorrupt, "token 6 is there twice");
  for (const char* merge : {"b d", "bc", "c b", "", "b  c", " bc", "bc ", "<e> b"})
    refused([&](V& v) { v.merges[0] = merge; }, ErrorCode::kCorrupt, "merge 0");
  refused([](V& v) { v.eos = 12; }, ErrorCode::kCorrupt, "eos_token_id is 12");
  refused([](V& v) { v.bos = UINT32_MAX; }, ErrorCode::kCorrupt, "bos_token_id");
  refused([](V& v) { v.tokens.push_back("d"), v.types.push_back(1); }, ErrorCode::kCorrupt, "token_embd.weight 12");
  refused([](V& v) { v.tokens.clear(), v.types.clear(); }, ErrorCode::kUnsupported, "0 tokens");
}

TEST(Tokenizer, EveryKindOfTokenDoesWhatItIsFor) {
  SmallVocabulary small;
  small.tokens = {"<u>", "<e>", "<think>", "[PAD]", "<end_of_turn>", "a", "b", "ab", "<", ">", "e", "[", "]"};
  small.types = {2, 3, 4, 5, 4, 1, 1, 1, 1, 1, 1, 1, 1};
  small.merges = {"a b"};
  small.eos = 1;
  small.rows = 13;
  const auto tokenizer = std::move(small.make().value());
  const auto as_text = [&](std::string_view text) { return tokenizer->encode(text, SpecialTokens::kAsText).value(); };
  const auto parsed = [&](std::string_view text) { return tokenizer->encode(text, SpecialTokens::kParse).value(); };
  EXPECT_EQ(as_text("ab<think>a<e>"), (Ids{7, 2, 5, 8, 10, 9}));  // user-defined is one token wherever it stands
  EXPECT_EQ(parsed("<u><e>"), (Ids{0, 1}));
  EXPECT_EQ(parsed("[PAD]"), (Ids{11, 12}));  // unused: never made of text; P, A and D have no token
  EXPECT_EQ(tokenizer->token_bytes(3), "");
  EXPECT_EQ(tokenizer->token_bytes(2), "<think>");
  const std::vector<bool> special = {true, true, false, false, true, false};
  for (TokenId token = 0; token < special.size(); ++token) EXPECT_EQ(tokenizer->is_special(token), special[token]);
  // eos, and what is called so though it is marked user-defined: then it is structure, and no text.
  EXPECT_TRUE(std::ranges::equal(tokenizer->end_of_generation(), Ids{1, 4}));
  EXPECT_EQ(as_text("<end_of_turn>").front(), 8u);
}

TEST(Tokenizer, EndsAreTheFilesAndTheKnownNames) {
  SmallVocabulary small;
  small.tokens[1] = "<|eot_id|>";
  small.tokens[8] = "</s>";  // normal: text
  small.merges = {"b c"};
  small.eos = 3;
  const auto tokenizer = std::move(small.make().value());
  EXPECT_TRUE(std::ranges::equal(tokenizer->end_of_generation(), Ids{1, 3}));
  EXPECT_EQ(tokenizer->end_of_sequence(), 3u);
  small.more = [](GgufWriter& writer) {
    writer.add("tokenizer.ggml.eot_token_id", uint32_t{0}).add("tokenizer.ggml.eom_token_id", uint32_t{3});
  };
  const auto with_more = std::move(small.make().value());
  EXPECT_TRUE(std::ranges::equal(with_more->end_of_generation(), Ids{0, 1, 3}));
  small.more = [](GgufWriter& writer) { writer.add("tokenizer.ggml.eot_token_id", uint32_t{12}); };
  EXPECT_NE(small.make().error().detail.find("eot_token_id is 12"), std::string::npos);
}

TEST(Tokenizer, BeginOfSequenceIsInFrontOnceWhereTheModelWantsIt) {
  SmallVocabulary small;
  const auto prompt = [&](std::string_view text) {
    return std::move(small.make().value())->encode_prompt(text, SpecialTokens::kParse).value();
  };
  EXPECT_EQ(prompt("ab"), (Ids{8}));  // gpt2 files do not want it unless they say so
  small.more = [](GgufWriter& writer) { writer.add("tokenizer.ggml.add_bos_token", true); };
  EXPECT_EQ(prompt("ab"), (Ids{0, 8}));
  EXPECT_EQ(prompt("<e>ab"), (Ids{0, 8}));
  EXPECT_EQ(prompt("ab<e>"), (Ids{0, 8, 0}));
  EXPECT_EQ(prompt(""), (Ids{0}));
  small.more = nullptr;
  small.pre = "llama-bpe";  // Llama 3 does
  EXPECT_EQ(prompt("ab"), (Ids{0, 8}));
  small.more = [](GgufWriter& writer) { writer.add("tokenizer.ggml.add_bos_token", false); };
  EXPECT_EQ(prompt("ab"), (Ids{8}));
  small.bos.reset();
  EXPECT_FALSE(std::move(small.make().value())->begin_of_sequence());
  small.more = nullptr;
  EXPECT_NE(small.make().error().detail.find("bos_token_id is missing"), std::string::npos);
}

TEST(Tokenizer, AWordThatIsATokenIsNotMergedWhereThePreTokenizerSaysSo) {
  SmallVocabulary small;
  small.merges = {"b c"};  // ab and abc cannot be reached by merging
  const auto ids = [&] { return std::move(small.make().value())->encode("abc ab", SpecialTokens::kAsText).value(); };
  EXPECT_EQ(ids(), (Ids{5, 9, 11, 5, 6}));
  small.pre = "llama-bpe";
  EXPECT_EQ(ids(), (Ids{10, 11, 5, 6}));
}

TEST(Tokenizer, AnAbsentKeyIsNamed) {
  const GgufFile file =
      std::move(GgufFile::from_bytes(GgufWriter().add("tokenizer.ggml.model", "gpt2").bytes()).value());
  EXPECT_NE(Tokenizer::from_gguf(file).error().detail.find("tokenizer.ggml.pre"), std::string::npos);
}

}  // namespace
}  // namespace spillway
