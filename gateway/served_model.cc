#include "gateway/served_model.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <utility>

#include "common/check.h"
#include "transfer/messages.h"

namespace spillway {
namespace {

// Unguessable, so that no message can contain it; letters and digits only, so that no template filter changes it.
std::string draw_marker() {
  std::array<uint64_t, 2> value{};
  CHECK(::getrandom(value.data(), sizeof value, 0) == static_cast<ssize_t>(sizeof value));
  return fmt::format("m{:016x}{:016x}m", value[0], value[1]);
}

// Replaces each special token that `text` spells by `marker`, and notes what it replaced: views into `text`.
std::string mask_specials(std::string_view text, const SpecialTokenMatcher& specials, std::string_view marker,
                          std::vector<std::string_view>& masked) {
  std::string out;
  size_t begin = 0;
  while (const auto found = specials.find(text, begin)) {
    out.append(text.substr(begin, found->begin - begin)).append(marker);
    masked.push_back(text.substr(found->begin, found->length));
    begin = found->begin + found->length;
  }
  return out.append(text.substr(begin));
}

}  // namespace

ServedModel::ServedModel(const Tokenizer& tokenizer, Settings settings)
    : tokenizer_(tokenizer), settings_(std::move(settings)) {
  CHECK(!settings_.names.empty() && settings_.max_model_len > 0);
  CHECK(!settings_.stop_tokens.empty() && settings_.stop_tokens.size() <= kStopTokensMax);
  for (TokenId token = 0; token < tokenizer.vocab_size(); ++token) {
    const std::string_view bytes = tokenizer.token_bytes(token);
    if (tokenizer.is_special(token)) specials_.add(bytes, token);
  }
}

Result<ServedModel> ServedModel::from_gguf(const GgufFile& file, const Tokenizer& tokenizer, Settings settings) {
  const std::span<const TokenId> ends = tokenizer.end_of_generation();
  if (ends.size() > kStopTokensMax)
    return fail(ErrorCode::kUnsupported,
                fmt::format("{} tokens end generation: supported are up to {}", ends.size(), kStopTokensMax));
  settings.stop_tokens.assign(ends.begin(), ends.end());
  if (file.contains("tokenizer.chat_template")) {
    const auto source = file.get_string("tokenizer.chat_template");
    if (!source) return tl::unexpected(source.error());
    auto parsed = ChatTemplate::parse(*source);
    if (!parsed) return tl::unexpected(parsed.error());
    settings.chat_template = std::move(*parsed);
  }
  return ServedModel(tokenizer, std::move(settings));
}

bool ServedModel::has_name(std::string_view name) const {
  return std::find(settings_.names.begin(), settings_.names.end(), name) != settings_.names.end();
}

Error ServedModel::too_long(size_t max_model_len, size_t tokens_at_least) {
  return {ErrorCode::kTooLong,
          fmt::format("the context is {} tokens, the prompt has at least {}: shorten it to leave room for one token of "
                      "answer",
                      max_model_len, tokens_at_least)};
}

Result<std::vector<TokenId>> ServedModel::encode(std::span<const TextPart> parts, const Limit& limit,
                                                 Begin begin) const {
  const auto refused = [&](size_t least) { return tl::unexpected<Error>(too_long(limit.tokens_max + 1, least)); };
  if (const size_t least = tokenizer_.tokens_at_least(parts); least > limit.tokens_max) return refused(least);
  const size_t stop = limit.count_all ? Tokenizer::kNoLimit : limit.tokens_max;
  auto tokens = begin == Begin::kAsModel ? tokenizer_.encode_prompt(parts, stop) : tokenizer_.encode_up_to(parts, stop);
  if (tokens && tokens->size() > stop) return refused(tokens->size());
  return tokens;
}

Result<std::vector<TokenId>> ServedModel::encode_prompt(std::string_view text, const Limit& limit) const {
  const TextPart part{text, SpecialTokens::kParse};
  return encode({&part, 1}, limit, Begin::kAsModel);
}

Result<std::vector<TokenId>> ServedModel::encode_text(std::string_view text, const Limit& limit) const {
  const TextPart part{text, SpecialTokens::kParse};
  return encode({&part, 1}, limit, Begin::kBare);
}

Result<std::vector<TokenId>> ServedModel::encode_chat(const std::vector<ChatMessage>& messages, const Limit& limit,
                                                      AnswerTurn turn) const {
  CHECK(has_chat());
  const std::string marker = draw_marker();
  std::vector<std::string_view> masked;
  ChatTemplate::Inputs inputs;
  inputs.add_generation_prompt = turn == AnswerTurn::kBegun;
  if (const auto begin = tokenizer_.begin_of_sequence()) inputs.bos_token = tokenizer_.token_bytes(*begin);
  inputs.eos_token = tokenizer_.token_bytes(tokenizer_.end_of_sequence());
  inputs.now = ChatTemplate::local_time();
  for (const ChatMessage& message : messages)
    inputs.messages.push_back({message.role, mask_specials(message.content, specials_, marker, masked)});
  const Result<std::string> rendered = settings_.chat_template->render(inputs);
  std::vector<TextPart> parts;
  if (!rendered) {  // what is too long says so, rather than that the template's memory did not suffice
    for (const ChatMessage& message : messages) parts.push_back({message.content});
    const size_t least = tokenizer_.tokens_at_least(parts);
    return tl::unexpected(least > limit.tokens_max ? too_long(limit.tokens_max + 1, least) : rendered.error());
  }
  std::string_view rest = *rendered;
  for (const std::string_view special : masked) {
    const size_t at = rest.find(marker);
    // A template may leave a message out, or show it twice: then which marker stands for what is unknown.
    if (at == std::string_view::npos)
      return fail(ErrorCode::kUnsupported, "the chat template drops a message that spells a special token");
    parts.push_back({rest.substr(0, at), SpecialTokens::kParse});
    parts.push_back({special, SpecialTokens::kAsText});
    rest.remove_prefix(at + marker.size());
  }
  if (rest.find(marker) != std::string_view::npos)
    return fail(ErrorCode::kUnsupported, "the chat template repeats a message that spells a special token");
  parts.push_back({rest, SpecialTokens::kParse});
  return encode(parts, limit, Begin::kAsModel);
}

}  // namespace spillway
