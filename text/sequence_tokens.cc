#include "text/sequence_tokens.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/vocabulary.h"

namespace spillway {
namespace {

constexpr std::string_view kEnds[] = {"</s>",
                                      "<|endoftext|>",
                                      "<|end_of_text|>",
                                      "<|eot_id|>",
                                      "<|eom_id|>",
                                      "<|im_end|>",
                                      "<|end|>",
                                      "<end_of_turn>",
                                      "<eos>",
                                      "<|end_of_turn|>",
                                      "<EOT>",
                                      "<end_of_utterance>",
                                      "<｜end▁of▁sentence｜>"};

// Nothing where there is no such key.
Result<std::optional<TokenId>> read_id(const GgufFile& file, std::string_view key, uint32_t vocab_size) {
  if (!file.contains(key)) return std::optional<TokenId>();
  const Result<uint64_t> id = file.get_uint(key);
  if (!id) return tl::unexpected<Error>(id.error());
  if (*id >= vocab_size)
    return fail(ErrorCode::kCorrupt, fmt::format("{} is {}, the vocabulary has {} tokens", key, *id, vocab_size));
  return std::optional(static_cast<TokenId>(*id));
}

}  // namespace

bool is_end_of_generation(std::string_view written) { return std::ranges::count(kEnds, written) > 0; }

Result<SequenceTokens> SequenceTokens::read(const GgufFile& file, const Vocabulary& vocabulary,
                                            bool adds_begin_by_default) {
  constexpr std::string_view kBegin = "tokenizer.ggml.bos_token_id", kAddsBegin = "tokenizer.ggml.add_bos_token";
  SequenceTokens tokens;
  for (const std::string_view key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    const Result<std::optional<TokenId>> id = read_id(file, key, vocabulary.size());
    if (!id) return tl::unexpected<Error>(id.error());
    if (*id) tokens.generation_ends.push_back(**id);
    if (!*id && tokens.generation_ends.empty())  // the first key is the one that must be there
      return fail(ErrorCode::kInvalidArgument, fmt::format("{} is missing", key));
  }
  tokens.end = tokens.generation_ends.front();
  const Result<std::optional<TokenId>> begin = read_id(file, kBegin, vocabulary.size());
  if (!begin) return tl::unexpected<Error>(begin.error());
  tokens.begin = *begin;
  tokens.adds_begin = adds_begin_by_default;
  if (file.contains(kAddsBegin)) {
    const Result<bool> adds = file.get_bool(kAddsBegin);
    if (!adds) return tl::unexpected<Error>(adds.error());
    tokens.adds_begin = *adds;
  }
  if (tokens.adds_begin && !tokens.begin)
    return fail(ErrorCode::kInvalidArgument, fmt::format("{} is missing, but prompts are to begin with it", kBegin));
  for (TokenId token = 0; token < vocabulary.size(); ++token)
    if (vocabulary.kind(token) == TokenKind::kControl && is_end_of_generation(vocabulary.bytes(token)))
      tokens.generation_ends.push_back(token);
  std::ranges::sort(tokens.generation_ends);
  const auto same = std::ranges::unique(tokens.generation_ends);
  tokens.generation_ends.erase(same.begin(), same.end());
  return tokens;
}

}  // namespace spillway
