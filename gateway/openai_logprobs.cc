#include "gateway/openai_logprobs.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <string>

#include "text/utf8.h"

namespace spillway {
namespace {

using Json = nlohmann::ordered_json;

// An embedding may have more rows than the tokeniser has tokens.
std::string_view bytes_of(const Tokenizer& tokenizer, TokenId token) {
  return token < tokenizer.vocab_size() ? tokenizer.token_bytes(token) : std::string_view();
}

std::string spelled(const Tokenizer& tokenizer, TokenId token) {
  const std::string_view bytes = bytes_of(tokenizer, token);
  if (valid_utf8_prefix(bytes) == bytes.size()) return std::string(bytes);
  std::string text = "bytes:";
  for (const char byte : bytes) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
  return text;
}

// The double with the fewest digits that is this float again: a float widened as it is would be written with 17.
Json written(float value) {
  std::array<char, 32> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  double shortest = 0;
  std::from_chars(digits.data(), end, shortest);
  return shortest;
}

Json completion_logprobs(const Tokenizer& tokenizer, std::span<const ScoredToken> tokens) {
  Json out = {{"tokens", Json::array()},
              {"token_logprobs", Json::array()},
              {"top_logprobs", Json::array()},
              {"text_offset", Json::array()}};
  for (const ScoredToken& one : tokens) {
    out["tokens"].push_back(spelled(tokenizer, one.token));
    out["text_offset"].push_back(one.text_offset);
    out["token_logprobs"].push_back(one.logprobs.empty() ? Json() : written(one.logprobs.front().logprob));
    Json top;  // null for the first of a prompt
    // From the highest on: of ids spelled alike the likeliest counts. The token itself is last, if not among them.
    for (size_t index = 1; index <= one.logprobs.size() && !one.logprobs.empty(); ++index) {
      const TokenLogprob& entry = one.logprobs[index % one.logprobs.size()];
      std::string name = spelled(tokenizer, entry.token);
      if (top.is_null() || !top.contains(name)) top[std::move(name)] = written(entry.logprob);
    }
    out["top_logprobs"].push_back(std::move(top));
  }
  return out;
}

Json chat_entry(const Tokenizer& tokenizer, const TokenLogprob& one) {
  Json bytes = Json::array();
  for (const char byte : bytes_of(tokenizer, one.token)) bytes.push_back(static_cast<unsigned char>(byte));
  return {{"token", spelled(tokenizer, one.token)}, {"logprob", written(one.logprob)}, {"bytes", std::move(bytes)}};
}

Json chat_logprobs(const Tokenizer& tokenizer, std::span<const ScoredToken> tokens) {
  Json content = Json::array();
  for (const ScoredToken& one : tokens) {
    if (one.logprobs.empty()) continue;
    Json entry = chat_entry(tokenizer, one.logprobs.front());
    entry["top_logprobs"] = Json::array();
    for (const TokenLogprob& top : std::span(one.logprobs).subspan(1))
      entry["top_logprobs"].push_back(chat_entry(tokenizer, top));
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

}  // namespace

Json logprobs_json(Endpoint endpoint, const Tokenizer& tokenizer, std::span<const ScoredToken> tokens) {
  return endpoint == Endpoint::kChatCompletions ? chat_logprobs(tokenizer, tokens)
                                                : completion_logprobs(tokenizer, tokens);
}

size_t character_count(std::string_view text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0u) != 0x80u; }));
}

}  // namespace spillway
