#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/ids.h"
#include "common/result.h"
#include "formats/gguf.h"
#include "kv/block.h"
#include "text/chat_template.h"
#include "text/special_token_matcher.h"
#include "text/tokenizer.h"

namespace spillway {

// The one model that this gateway answers for: its names in the API, its text side, its limits. Immutable after
// construction; any thread may call the const functions at once. Borrows the tokenizer, which must outlive it.
class ServedModel {
 public:
  struct Settings {
    std::vector<std::string> names;             // for `model` of requests; the first where one names none
    bool any_name = false;                      // requests may name any model
    std::optional<ChatTemplate> chat_template;  // absent: chat completions are refused
    std::vector<TokenId> stop_tokens;           // end an answer; 1 to kStopTokensMax, else refused by from_gguf()
    uint32_t max_model_len = 0;                 // prompt + output, tokens
    TenantKey tenant;                           // keys the prefix cache of those who show no API key
  };
  // REQUIRES: a name, max_model_len > 0 and a number of stop tokens within bounds (CHECK).
  ServedModel(const Tokenizer& tokenizer, Settings settings);
  // Template and stop tokens (all that end generation) from the file, the rest from `settings`. No
  // `tokenizer.chat_template` is a model without chat; one that does not parse is the parser's error. kUnsupported:
  // more end tokens than kStopTokensMax.
  static Result<ServedModel> from_gguf(const GgufFile& file, const Tokenizer& tokenizer, Settings settings);

  const std::string& name() const { return settings_.names.front(); }
  const std::vector<std::string>& names() const { return settings_.names; }
  bool has_name(std::string_view name) const;
  bool accepts_any_name() const { return settings_.any_name; }
  bool accepts_name(std::string_view name) const { return settings_.any_name || name == "*" || has_name(name); }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  std::span<const TokenId> stop_tokens() const { return settings_.stop_tokens; }
  uint32_t max_model_len() const { return settings_.max_model_len; }
  const TenantKey& tenant() const { return settings_.tenant; }
  bool has_chat() const { return settings_.chat_template.has_value(); }

  // Of text that is to be encoded: where its bytes tell that it has more tokens it is refused before that (kTooLong),
  // else, unless count_all, as soon as it turns out to have more.
  struct Limit {
    size_t tokens_max = Tokenizer::kNoLimit;
    bool count_all = false;
  };
  static Error too_long(size_t max_model_len, size_t tokens_at_least);
  // A raw prompt. Special tokens written in it count as such: whoever sends raw prompts writes the template by hand.
  // As with llama-server BOS comes in front where the model wants it, here unless the text begins with it.
  Result<std::vector<TokenId>> encode_prompt(std::string_view text, const Limit& limit) const;
  // As encode_prompt(), never with BOS.
  Result<std::vector<TokenId>> encode_text(std::string_view text, const Limit& limit) const;
  // The conversation in the model's template, ready for the assistant's turn. Control tokens come from the template
  // only; where a message spells one, it stays text, so no message can end its turn or fake another role's. Tokens that
  // the file calls user-defined (Qwen3's <think>) count wherever they stand. BOS is in front once where the model wants
  // it, whether its template writes it or not.
  // kNone: without the words that begin the assistant's turn. REQUIRES: has_chat().
  enum class AnswerTurn : uint8_t { kBegun, kNone };
  // The limit is that of what the template makes of the messages.
  Result<std::vector<TokenId>> encode_chat(const std::vector<ChatMessage>& messages, const Limit& limit,
                                           AnswerTurn turn = AnswerTurn::kBegun) const;

 private:
  enum class Begin : uint8_t { kAsModel, kBare };  // of sequence: BOS where the model wants it, or never
  Result<std::vector<TokenId>> encode(std::span<const TextPart> parts, const Limit& limit, Begin begin) const;

  const Tokenizer& tokenizer_;
  Settings settings_;
  SpecialTokenMatcher specials_;
};

}  // namespace spillway
