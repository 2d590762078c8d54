#include "text/detokenizer.h"

#include "text/utf8.h"

namespace spillway {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace

std::string Detokenizer::push(TokenId token) {
  if (token >= tokenizer_.vocab_size() || tokenizer_.is_special(token)) return {};
  return push_bytes(tokenizer_.token_bytes(token));
}

std::string Detokenizer::push_bytes(std::string_view bytes) {
  pending_ += bytes;
  std::string text;
  std::string_view left = pending_;
  while (!left.empty()) {
    const Utf8Step step = next_utf8(left);
    if (step.kind == Utf8Kind::kIncomplete) break;
    text += step.kind == Utf8Kind::kCharacter ? left.substr(0, step.length) : kReplacement;
    left.remove_prefix(step.length);
  }
  pending_.erase(0, pending_.size() - left.size());
  return text;
}

std::string Detokenizer::finish() {
  if (pending_.empty()) return {};
  pending_.clear();
  return std::string(kReplacement);
}

}  // namespace spillway
