#include "tests/support/spm_vocabulary.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/check.h"

namespace spillway {

SpmVocabulary::SpmVocabulary() {
  const auto add = [&](std::string token, float score, int32_t type) {
    tokens.push_back(std::move(token));
    scores.push_back(score);
    types.push_back(type);
  };
  add("<unk>", 0, 2);
  add("<s>", 0, 3);
  add("</s>", 0, 3);
  add("<tool>", 0, 4);
  add("bcb", 0, 5);
  for (int byte = 0; byte < 256; ++byte) add(fmt::format("<0x{:02X}>", byte), 0, 6);
  CHECK(tokens.size() == kFirstPiece);
  const std::pair<const char*, float> pieces[] = {
      {"▁", -20},   {"a", -21},  {"b", -22},   {"c", -23},    {"<", -24},    {">", -25}, {"s", -26}, {"é", -27},
      {"ab", -3},   {"bc", -3},  {"▁a", -5},   {"abc", -6},   {"▁abc", -7},  {"▁▁", -8}, {"<s", -1}, {"éa", -9},
      {"日a", -10}, {"aa", -11}, {"aaaa", -4}, {"▁▁▁▁", -12}, {"ca▁b", -13}, {"a▁", -14}};
  for (const auto& [piece, score] : pieces) add(piece, score, 1);
}

uint32_t SpmVocabulary::id(std::string_view piece) const {
  const auto found = std::ranges::find(tokens, piece);
  CHECK(found != tokens.end());
  return static_cast<uint32_t>(found - tokens.begin());
}

GgufWriter SpmVocabulary::writer() const {
  GgufWriter writer;
  writer.add("tokenizer.ggml.model", "llama").add_array("tokenizer.ggml.tokens", tokens);
  writer.add_array("tokenizer.ggml.scores", scores).add_array("tokenizer.ggml.token_type", types);
  writer.add("tokenizer.ggml.bos_token_id", kBegin).add("tokenizer.ggml.eos_token_id", kEnd);
  return writer;
}

}  // namespace spillway
