#include "gateway/field_table.h"

#include <algorithm>
#include <iterator>

#include "gateway/openai_request.h"
#include "gateway/stop_matcher.h"
#include "transfer/messages.h"

namespace spillway {
namespace {

using enum FieldType;
using enum FieldUse;

constexpr uint8_t bit(Route route) { return static_cast<uint8_t>(1u << static_cast<unsigned>(route)); }
constexpr uint8_t kText = bit(Route::kCompletions), kChat = bit(Route::kChatCompletions);
constexpr uint8_t kAnswers = kText | kChat;
constexpr uint8_t kTokenize = bit(Route::kTokenize), kDetokenize = bit(Route::kDetokenize);
constexpr uint8_t kAll = kAnswers | kTokenize | kDetokenize;
constexpr auto kNone = FieldLimit::kNone, kContext = FieldLimit::kContext, kVocabulary = FieldLimit::kVocabulary;

// The words below say these numbers.
static_assert(kPromptsMax == 64 && kListContexts == 8 && kAnswerChoicesMax == 128);
static_assert(kBiasMax == 100 && kStopCharactersMax == 256 && kStopTokensMax == 8);
constexpr Field kFields[] = {
    {"model", kAll, kString, kUsed, 0, 0, kNone, "the first of `/v1/models`",
     "a name of `/v1/models`, or `*`; any with `--served-model-name \"*\"`"},
    {"prompt", kText, kPrompt, kUsed, 1, kPromptTokensMax, kContext, "required",
     "a string, a list of token ids, or a list of up to 64 of either, of 8 contexts together"},
    {"prompt", kTokenize, kString, kUsed, 0, 0, kNone, "",
     "the text; or `content`, or `messages`, but not more than one"},
    {"content", kTokenize, kString, kUsed, 0, 0, kNone, "", "the same as `prompt`"},
    {"add_special", kTokenize, kBoolean, kUsed, 0, 0, kNone, "false",
     "the tokens of the text as a prompt: with begin-of-sequence where the model wants it"},
    {"messages", kChat, kMessages, kUsed, 1, kChatMessagesMax, kNone, "required",
     "of system, developer, user, assistant; text, or parts of type text"},
    {"messages", kTokenize, kMessages, kUsed, 1, kChatMessagesMax, kNone, "", "a chat instead of a text"},
    {"tokens", kDetokenize, kTokenIds, kUsed, 0, kPromptTokensMax, kContext, "required", "what to spell"},
    {"max_tokens", kText, kInteger, kUsed, 0, kPromptTokensMax, kContext, "16",
     "the longest answer; prompt and answer share the context; 0 only with `echo`"},
    {"max_tokens", kChat, kInteger, kUsed, 1, kPromptTokensMax, kContext, "what is left",
     "the longest answer; prompt and answer share the context"},
    {"max_completion_tokens", kText, kInteger, kUsed, 0, kPromptTokensMax, kContext, "`max_tokens`",
     "the newer name of `max_tokens`; it counts where both are given"},
    {"max_completion_tokens", kChat, kInteger, kUsed, 1, kPromptTokensMax, kContext, "`max_tokens`",
     "the newer name of `max_tokens`; it counts where both are given"},
    {"min_tokens", kAnswers, kInteger, kUsed, 0, kPromptTokensMax, kContext, "0",
     "no end token before; at most the longest answer; `stop` strings are not held back by it"},
    {"temperature", kAnswers, kNumber, kUsed, 0, 2, kNone, "1", "0 is greedy"},
    {"top_p", kAnswers, kNumber, kUsed, 0, 1, kNone, "1",
     "the fewest tokens with this share are drawn from; 0: the likeliest"},
    {"top_k", kAnswers, kInteger, kUsed, -1, kTokenIdEnd, kVocabulary, "0",
     "so many tokens are drawn from; -1, 0: off"},
    {"min_p", kAnswers, kNumber, kUsed, 0, 1, kNone, "0", "tokens at least so probable, relative to the first"},
    {"presence_penalty", kAnswers, kNumber, kUsed, -kPenaltyMax, kPenaltyMax, kNone, "0", "over what was generated"},
    {"frequency_penalty", kAnswers, kNumber, kUsed, -kPenaltyMax, kPenaltyMax, kNone, "0", "over what was generated"},
    {"repetition_penalty", kAnswers, kNumber, kUsed, kAboveZero, kPenaltyMax, kNone, "1", "over prompt and output"},
    {"logit_bias", kAnswers, kBiases, kUsed, 0, kLogitBiasMax, kVocabulary, "none", "`{token id: -100 to 100}`"},
    {"seed", kAnswers, kInteger, kUsed, -0x1p63, 0x1p64, kNone, "random", "any 64-bit integer"},
    {"stop", kAnswers, kStrings, kUsed, 0, kStopStringsMax, kNone, "none",
     "a string or a list, each 1 to 256 characters"},
    {"stop_token_ids", kAnswers, kTokenIds, kUsed, 0, kStopTokensMax, kVocabulary, "none",
     "8 with the model's own end tokens; the text of either is no part of the answer"},
    {"ignore_eos", kAnswers, kBoolean, kUsed, 0, 0, kNone, "false", "the model's own end tokens do not end the answer"},
    {"priority", kAnswers, kInteger, kUsed, -kPriorityMax, kPriorityMax, kNone, "0",
     "lower is sooner, among the requests of one key that wait; ties by arrival"},
    {"stream", kAnswers, kBoolean, kUsed, 0, 0, kNone, "false", "the answer as events, a token each"},
    {"stream_options", kAnswers, FieldType::kStreamOptions, kUsed, 0, 0, kNone, "none",
     "only with `stream`; `include_usage`: a last chunk with `usage`; and with `continuous_usage_stats` in every "
     "chunk"},
    {"n", kAnswers, kInteger, kUsed, 1, kChoicesMax, kNone, "1", "choices of each prompt; prompts x `n` at most 128"},
    {"best_of", kAnswers, kInteger, kUsed, 1, kChoicesMax, kNone, "`n`", "only equal to `n`"},
    {"logprobs", kText, kInteger, kUsed, 0, kLogprobsMax, kNone, "none",
     "each token's log-probability, and those of so many likeliest"},
    {"logprobs", kChat, kBoolean, kUsed, 0, 0, kNone, "false", "each token's log-probability"},
    {"top_logprobs", kChat, kInteger, kUsed, 0, kLogprobsMax, kNone, "0", "so many likeliest tokens; with `logprobs`"},
    {"echo", kText, kBoolean, kUsed, 0, 0, kNone, "false",
     "the prompt in front of the answer; with `logprobs` its tokens' too"},
    {"logit_digests", kAnswers, kBoolean, kUsed, 0, 0, kNone, "false",
     "ours: a digest of the logits behind each token"},

    {"top_logprobs", kText, kInteger, kNeutral, 0, 0, kNone, "[0]"},
    {"echo", kChat, kBoolean, kNeutral, 0, 0, kNone, "[false]"},
    {"response_format", kAnswers, kAny, kNeutral, 0, 0, kNone, R"([{"type": "text"}])"},
    {"tool_choice", kAnswers, kAny, kNeutral, 0, 0, kNone, R"(["none", "auto"])"},
    {"modalities", kAnswers, kAny, kNeutral, 0, 0, kNone, R"([["text"]])"},

    // OpenAI's
    {"tools", kAnswers, kAny, kUnsupported},
    {"functions", kAnswers, kAny, kUnsupported},
    {"function_call", kAnswers, kAny, kUnsupported},
    {"suffix", kAnswers, kAny, kUnsupported},
    {"audio", kAnswers, kAny, kUnsupported},
    {"images", kAnswers, kAny, kUnsupported},
    {"prediction", kAnswers, kAny, kUnsupported},
    {"web_search_options", kAnswers, kAny, kUnsupported},
    // other servers'
    {"prompt_logprobs", kAnswers, kAny, kUnsupported},
    {"bad_words", kAnswers, kAny, kUnsupported},
    {"prompt_embeds", kAnswers, kAny, kUnsupported},
    {"use_beam_search", kAnswers, kAny, kUnsupported},
    {"guided_json", kAnswers, kAny, kUnsupported},
    {"guided_regex", kAnswers, kAny, kUnsupported},
    {"guided_choice", kAnswers, kAny, kUnsupported},
    {"guided_grammar", kAnswers, kAny, kUnsupported},
    {"structured_outputs", kAnswers, kAny, kUnsupported},
    {"grammar", kAnswers, kAny, kUnsupported},
    {"json_schema", kAnswers, kAny, kUnsupported},
    {"chat_template", kAnswers, kAny, kUnsupported},
    {"chat_template_kwargs", kAnswers, kAny, kUnsupported},
    {"include_stop_str_in_output", kAnswers, kAny, kUnsupported},
    {"cache_salt", kAnswers, kAny, kUnsupported},
    {"kv_transfer_params", kAnswers, kAny, kUnsupported},

    {"user", kAnswers, kAny, kHarmless},
    {"metadata", kAnswers, kAny, kHarmless},
    {"store", kAnswers, kAny, kHarmless},
    {"service_tier", kAnswers, kAny, kHarmless},
    {"safety_identifier", kAnswers, kAny, kHarmless},
    {"prompt_cache_key", kAnswers, kAny, kHarmless},
    {"parallel_tool_calls", kAnswers, kAny, kHarmless},
};

}  // namespace

std::span<const Field> field_table() { return kFields; }

const Field* find_rule(Route route, std::string_view name) {
  const auto* const found = std::find_if(std::begin(kFields), std::end(kFields),
                                         [&](const Field& field) { return field.takes(route) && field.name == name; });
  return found == std::end(kFields) ? nullptr : found;
}

}  // namespace spillway
