#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/served_model.h"
#include "text/tokenizer.h"

namespace spillway {

// A token per byte, and three special tokens: text and token ids of a test can be read off each other.
class ByteTokenizer final : public Tokenizer {
 public:
  static constexpr TokenId kStart = 256, kEnd = 257, kEndOfText = 258;

  Result<std::vector<TokenId>> encode_up_to(std::span<const TextPart> parts, size_t tokens_max) const override {
    std::vector<TokenId> tokens;
    for (auto [text, special] : parts) {
      if (before_encode) before_encode(text);
      while (!text.empty()) {
        TokenId token = static_cast<unsigned char>(text.front());
        if (special == SpecialTokens::kParse)
          for (const TokenId candidate : {kStart, kEnd, kEndOfText})
            if (text.starts_with(token_bytes(candidate))) token = candidate;
        tokens.push_back(token);
        if (tokens.size() > tokens_max) return tokens;
        text.remove_prefix(token_bytes(token).size());
      }
    }
    return tokens;
  }
  size_t tokens_at_least(std::span<const TextPart> parts) const override {
    size_t bytes = 0;
    for (const TextPart& part : parts) bytes += part.text.size();
    return bytes / token_bytes(kEndOfText).size();
  }
  std::string_view token_bytes(TokenId token) const override {
    if (token == kStart) return "<|im_start|>";
    if (token == kEnd) return "<|im_end|>";
    if (token == kEndOfText) return "<|endoftext|>";
    return std::string_view(bytes_).substr(token, 1);
  }
  bool is_special(TokenId token) const override { return token >= kStart; }
  uint32_t vocab_size() const override {
    if (before_size) before_size();
    return 259;
  }
  TokenId end_of_sequence() const override { return kEnd; }
  std::optional<TokenId> begin_of_sequence() const override { return kEndOfText; }
  bool adds_begin_of_sequence() const override { return adds_begin; }
  std::span<const TokenId> end_of_generation() const override { return {&kEnd, 1}; }

  bool adds_begin = false;
  std::function<void(std::string_view)> before_encode;  // runs on the thread that encodes
  std::function<void()> before_size;                    // that asks for the vocabulary's size

 private:
  std::string bytes_ = [] {
    std::string all;
    for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
    return all;
  }();
};

inline constexpr std::string_view kTestTemplate =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

inline ServedModel make_byte_model(const Tokenizer& tokenizer, uint32_t max_model_len = 1000,
                                   std::string_view chat_template = kTestTemplate) {
  ServedModel::Settings settings;
  settings.names = {"bytes", "org/second"};
  settings.max_model_len = max_model_len;
  settings.stop_tokens = {ByteTokenizer::kEnd};
  settings.tenant.bytes[0] = std::byte{7};
  if (!chat_template.empty()) {
    auto parsed = ChatTemplate::parse(chat_template);
    EXPECT_TRUE(parsed) << parsed.error().detail;
    if (parsed) settings.chat_template = std::move(*parsed);
  }
  return ServedModel(tokenizer, std::move(settings));
}

}  // namespace spillway
