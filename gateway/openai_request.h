#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/gateway.h"
#include "gateway/openai_response.h"
#include "gateway/served_model.h"

// The JSON that arrives: bytes from strangers become a GenerateRequest here, or an ApiError that names the field.
namespace spillway {

inline constexpr int kJsonDepthMax = 32;
inline constexpr size_t kJsonValuesMax = (size_t{1} << 20) + 4096;  // a prompt of kPromptTokensMax ids, and the rest
inline constexpr size_t kChatMessagesMax = 4096;
inline constexpr int32_t kPriorityMax = 100;  // and its negative

// Of one request of the API, lists of prompts and `n` taken together.
inline constexpr size_t kPromptsMax = 64;
inline constexpr uint32_t kChoicesMax = 8;  // `n`
inline constexpr size_t kListContexts = 8;  // the tokens of all prompts: at most so many times the context
inline constexpr size_t kLogprobEntriesMax = size_t{1} << 19;  // log-probabilities that one answer may hold
inline constexpr size_t kPublicPrefixTokensMax = 1 << 16;      // of one
inline constexpr size_t kAnswerChoicesMax = 128;               // prompts x `n`

struct PromptOfList {
  std::vector<TokenId> prompt;
  uint32_t output_tokens_max = 0;
};
struct ApiRequest {
  GenerateRequest work;  // all but `request`, `tenant` and `leader`; of a list its first prompt
  std::vector<PromptOfList> more_prompts;
  uint32_t choices = 1;      // of each prompt
  bool echo = false;         // the prompt in front of each choice
  bool prompt_only = false;  // max_tokens 0: what is sampled all the same is no part of the answer
  Endpoint endpoint{};
  std::string model;  // for the answer: the name asked for where it is one of ours, else the first
  bool stream = false, include_usage = false;
  bool running_usage = false;        // usage in every chunk; with include_usage only, as in vLLM
  std::vector<std::string> stop;     // at most kStopStringsMax of at most kStopBytesMax
  std::vector<std::string> ignored;  // unknown fields, also inside others, printable and bounded: for a Warning header
};

// Validates every field, renders the template, tokenises: milliseconds for long prompts, so not on the http thread.
// Pure but for `seed_default`, used when the request names none; any thread. `max_model_len`: tokens of prompt and
// output that the nodes take now, at most the model's own.
Parsed<ApiRequest> parse_api_request(Endpoint endpoint, std::string_view body, const ServedModel& model,
                                     uint32_t max_model_len, uint64_t seed_default);

struct TokensRequest {
  std::vector<TokenId> tokens;
  std::vector<std::string> ignored;  // as in ApiRequest
};
// The tokens of {"prompt" or "content": text, "add_special": bool} or {"messages": [...]}, special ones spelled in a
// prompt counted as such. Text is bounded as a prompt's is, though its tokens may be more than the context.
Parsed<TokensRequest> parse_tokenize_request(std::string_view body, const ServedModel& model, uint32_t max_model_len);
// Of {"tokens": [...]}, bounded as a prompt of token ids is.
Parsed<TokensRequest> parse_detokenize_request(std::string_view body, const ServedModel& model, uint32_t max_model_len);

// A prefix that its operator marks public: {"messages": [...]}, without the words that begin the assistant's turn, or
// {"prompt": text or token ids}, under the rules of a request; other fields of a request have no effect, unknown ones
// are refused. At most kPublicPrefixTokensMax tokens.
Parsed<std::vector<TokenId>> parse_public_prefix(std::string_view body, const ServedModel& model);

}  // namespace spillway
