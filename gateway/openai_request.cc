#include "gateway/openai_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "gateway/chat_messages.h"
#include "gateway/request_fields.h"

namespace spillway {
namespace {

using Json = nlohmann::json;

Parsed<std::vector<TokenId>> or_refuse(Result<std::vector<TokenId>> tokens, const char* param) {
  if (tokens) return std::move(*tokens);
  ApiError error = to_api_error(tokens.error(), "");
  error.param = param;
  return tl::unexpected(std::move(error));
}

// One request body whose fields have passed check_fields().
class Reader {
 public:
  // `ignored`: names of what is read over inside a field are added; outlives the reader.
  Reader(const Json& body, const ServedModel& model, uint32_t max_model_len, std::vector<std::string>& ignored)
      : body_(body), model_(model), max_model_len_(std::min(max_model_len, model.max_model_len())), ignored_(ignored) {}

  // What of a text is encoded where it must fit, and where its tokens are to be counted though it may not.
  ServedModel::Limit fitting() const { return {.tokens_max = max_model_len_ - 1, .count_all = false}; }
  ServedModel::Limit counted() const { return {.tokens_max = max_model_len_ - 1, .count_all = true}; }

  bool flag(std::string_view name) const { return number(name, false); }

  // A number or boolean whose type and bounds check_fields() has seen.
  template <class Number>
  Number number(std::string_view name, Number when_absent) const {
    const Json* const value = find_field(body_, name);
    return value != nullptr ? value->get<Number>() : when_absent;
  }

  // The name that answers carry.
  Parsed<std::string> read_model() const {
    const Json* const name = find_field(body_, "model");
    if (name == nullptr) return model_.name();
    if (!name->is_string()) return refuse("model", "model must be a string", "invalid_type");
    const auto& text = name->get_ref<const std::string&>();
    if (model_.accepts_name(text)) return model_.has_name(text) ? text : model_.name();
    ApiError error{.status = 404, .param = "model", .code = "model_not_found"};
    error.message = fmt::format("the model '{}' does not exist here: this server has '{}'", printable(text),
                                fmt::join(model_.names(), "', '"));
    return tl::unexpected(std::move(error));
  }

  Parsed<void> read_stream(ApiRequest& request) const {
    request.stream = flag("stream");
    const Json* const options = find_field(body_, "stream_options");
    if (options == nullptr) return {};
    if (!options->is_object()) return refuse("stream_options", "stream_options must be an object", "invalid_type");
    if (!request.stream) return refuse("stream_options", "stream_options is for requests with stream: true");
    const auto option = [&](std::string_view name) {
      const Json* const value = find_field(*options, name);
      return value != nullptr && value->get<bool>();
    };
    for (const std::string_view name : kStreamOptions)
      if (const Json* const value = find_field(*options, name); value != nullptr && !value->is_boolean())
        return refuse("stream_options", fmt::format("stream_options.{} must be true or false", name), "invalid_type");
    add_unknown_members("stream_options.", *options, kStreamOptions, ignored_);
    request.include_usage = option("include_usage");
    request.running_usage = request.include_usage && option("continuous_usage_stats");
    return {};
  }

  // All but min_tokens, which the length of the answer bounds.
  Parsed<SamplingParams> read_sampling(uint64_t seed_default) const {
    SamplingParams sampling;
    sampling.temperature = number("temperature", 1.0f);  // OpenAI's default
    sampling.seed = seed_default;
    if (const Json* const seed = find_field(body_, "seed"))
      sampling.seed = seed->is_number_unsigned() ? seed->get<uint64_t>() : static_cast<uint64_t>(seed->get<int64_t>());
    sampling.top_p = std::max(number("top_p", sampling.top_p), static_cast<float>(kAboveZero));  // one token's share
    sampling.min_p = number("min_p", sampling.min_p);
    sampling.presence_penalty = number("presence_penalty", sampling.presence_penalty);
    sampling.frequency_penalty = number("frequency_penalty", sampling.frequency_penalty);
    sampling.repetition_penalty = number("repetition_penalty", sampling.repetition_penalty);
    const auto top_k = number<int64_t>("top_k", 0);
    if (top_k > vocab())
      return refuse("top_k", fmt::format("top_k is {}: the vocabulary has {} tokens", top_k, vocab()));
    sampling.top_k = static_cast<uint32_t>(std::max<int64_t>(top_k, 0));
    auto biases = read_logit_bias(body_, vocab());
    if (!biases) return tl::unexpected(biases.error());
    sampling.logit_bias = std::move(*biases);
    return sampling;
  }

  // The model's own end tokens, unless ignore_eos, and those of stop_token_ids.
  Parsed<std::vector<TokenId>> read_stop_tokens() const {
    std::vector<TokenId> tokens;
    if (!flag("ignore_eos")) tokens.assign(model_.stop_tokens().begin(), model_.stop_tokens().end());
    const Json* const list = find_field(body_, "stop_token_ids");
    if (list == nullptr) return tokens;
    if (!list->is_array())
      return refuse("stop_token_ids", "stop_token_ids must be a list of token ids", "invalid_type");
    const size_t own = model_.stop_tokens().size();  // with ignore_eos too: /openapi.json knows one number
    if (list->size() > kStopTokensMax - own)
      return refuse("stop_token_ids", fmt::format("stop_token_ids has {} entries: at most {} are taken beside the "
                                                  "model's own {}",
                                                  list->size(), kStopTokensMax - own, own));
    const auto given = read_token_ids(*list, "stop_token_ids");
    if (!given) return tl::unexpected(given.error());
    tokens.insert(tokens.end(), given->begin(), given->end());
    return tokens;
  }

  Parsed<uint32_t> read_min_tokens(uint32_t output_tokens_max) const {
    const auto tokens = number<uint32_t>("min_tokens", 0);
    if (tokens <= output_tokens_max) return tokens;
    return refuse("min_tokens",
                  fmt::format("min_tokens is {}, but at most {} are generated", tokens, output_tokens_max));
  }

  Parsed<std::vector<std::vector<TokenId>>> read_prompts() const {
    const Json* const prompt = find_field(body_, "prompt");
    if (prompt == nullptr) return refuse("prompt", "prompt is missing: a string, or a list of token ids");
    const bool list =
        prompt->is_array() && !prompt->empty() && (prompt->front().is_string() || prompt->front().is_array());
    if (list && prompt->size() > kPromptsMax)
      return refuse("prompt",
                    fmt::format("prompt lists {} prompts: at most {} are taken", prompt->size(), kPromptsMax));
    std::vector<std::vector<TokenId>> prompts;
    size_t total = 0;
    for (size_t index = 0; index < (list ? prompt->size() : 1); ++index) {
      auto tokens = read_prompt(list ? (*prompt)[index] : *prompt, fitting());
      if (!tokens) return tl::unexpected(tokens.error());
      total += tokens->size();
      prompts.push_back(std::move(*tokens));
      if (total > kListContexts * max_model_len_)
        return refuse("prompt",
                      fmt::format("the first {} prompts have {} tokens: all together may have {}", prompts.size(),
                                  total, kListContexts * max_model_len_),
                      "context_length_exceeded");
    }
    return prompts;
  }

  Parsed<std::vector<TokenId>> read_prompt(const Json& prompt, const ServedModel::Limit& limit) const {
    if (prompt.is_string()) {
      const auto& text = prompt.get_ref<const std::string&>();
      return or_refuse(model_.encode_prompt(text, limit), "prompt");
    }
    if (!prompt.is_array()) return refuse("prompt", "prompt must be a string or a list of token ids", "invalid_type");
    if (prompt.size() >= max_model_len_) return too_long("prompt", prompt.size());
    return read_token_ids(prompt, "prompt");
  }

  // How many log-probabilities a token comes with: entries as in common/logprobs.h.
  Parsed<uint32_t> read_logprobs(Endpoint endpoint) const {
    if (endpoint == Endpoint::kCompletions) {
      const Json* const asked = find_field(body_, "logprobs");
      return asked == nullptr ? 0 : 1 + asked->get<uint32_t>();
    }
    const auto top = number<uint32_t>("top_logprobs", 0);
    if (flag("logprobs")) return 1 + top;
    if (top > 0) return refuse("top_logprobs", "top_logprobs is for requests with logprobs: true");
    return 0;
  }

  // How many choices each prompt has.
  Parsed<uint32_t> read_choices(size_t prompts) const {
    const auto choices = number<uint32_t>("n", 1);
    const auto best_of = number<uint32_t>("best_of", choices);
    if (best_of != choices)
      return refuse("best_of", fmt::format("best_of {} is only supported equal to n, which is {}", best_of, choices),
                    "unsupported");
    if (prompts * choices > kAnswerChoicesMax)
      return refuse("n", fmt::format("{} prompts with {} choices each are {} answers: at most {} are taken", prompts,
                                     choices, prompts * choices, kAnswerChoicesMax));
    if (prompts * choices > 1 && flag("logit_digests"))
      return refuse("logit_digests", "logit_digests is for requests with one choice");
    return choices;
  }

  Parsed<std::vector<TokenId>> read_text_to_tokenize() const {
    const auto name = the_one_given(body_, {"prompt", "content", "messages"});
    if (!name) return tl::unexpected(name.error());
    if (*name == std::string_view("messages")) return read_messages(counted());
    const auto& text = find_field(body_, *name)->get_ref<const std::string&>();
    return or_refuse(flag("add_special") ? model_.encode_prompt(text, counted()) : model_.encode_text(text, counted()),
                     *name);
  }

  Parsed<std::vector<TokenId>> read_tokens_to_spell() const {
    const Json* const tokens = find_field(body_, "tokens");
    if (tokens == nullptr || !tokens->is_array())
      return refuse("tokens", "tokens must be a list of token ids", "invalid_type");
    if (tokens->size() >= max_model_len_) return too_long("tokens", tokens->size());
    return read_token_ids(*tokens, "tokens");
  }

  Parsed<std::vector<TokenId>> read_messages(const ServedModel::Limit& limit,
                                             ServedModel::AnswerTurn turn = ServedModel::AnswerTurn::kBegun) const {
    if (!model_.has_chat())
      return refuse("messages", "this model has no chat template: use /v1/completions", "unsupported");
    const Json* const list = find_field(body_, "messages");
    if (list == nullptr || !list->is_array())
      return refuse("messages", "messages must be a list of {role, content}", "invalid_type");
    if (list->empty() || list->size() > kChatMessagesMax)
      return refuse("messages",
                    fmt::format("messages has {} entries: 1 to {} are taken", list->size(), kChatMessagesMax));
    std::vector<ChatMessage> messages;
    for (size_t index = 0; index < list->size(); ++index) {
      auto message = read_message((*list)[index], fmt::format("messages[{}]", index), ignored_);
      if (!message) return tl::unexpected(message.error());
      messages.push_back(std::move(*message));
    }
    return or_refuse(model_.encode_chat(messages, limit, turn), "messages");
  }

  // How many tokens to generate, given the prompt's length.
  Parsed<uint32_t> read_output_tokens(Endpoint endpoint, size_t prompt_tokens) const {
    const char* const prompt_field = endpoint == Endpoint::kCompletions ? "prompt" : "messages";
    if (prompt_tokens == 0) return refuse(prompt_field, fmt::format("{} has no tokens", prompt_field));
    if (prompt_tokens >= max_model_len_) return too_long(prompt_field, prompt_tokens);
    const auto room = static_cast<uint32_t>(max_model_len_ - prompt_tokens);
    const Json* const newer = find_field(body_, "max_completion_tokens");
    const Json* const asked = newer != nullptr ? newer : find_field(body_, "max_tokens");
    // OpenAI's defaults: 16 for completions, what is left of the context for chat.
    if (asked == nullptr) return endpoint == Endpoint::kCompletions ? std::min(room, 16u) : room;
    const auto tokens = asked->get<uint32_t>();
    if (tokens == 0 && !flag("echo"))
      return refuse(newer != nullptr ? "max_completion_tokens" : "max_tokens",
                    "0 tokens are only generated behind an echoed prompt: ask for at least 1");
    if (tokens <= room) return tokens;
    return refuse(newer != nullptr ? "max_completion_tokens" : "max_tokens",
                  fmt::format("the context is {} tokens, but {} were requested ({} of the prompt, {} to generate): ask "
                              "for at most {}, or shorten the prompt",
                              max_model_len_, prompt_tokens + tokens, prompt_tokens, tokens, room),
                  "context_length_exceeded");
  }

 private:
  uint32_t vocab() const { return model_.tokenizer().vocab_size(); }

  Parsed<std::vector<TokenId>> read_token_ids(const Json& list, const char* param) const {
    std::vector<TokenId> tokens;
    tokens.reserve(list.size());
    for (const Json& id : list) {
      if (!is_whole(id))
        return refuse(param, fmt::format("{}[{}] must be a token id", param, tokens.size()), "invalid_type");
      if (const auto number = id.get<double>(); !(number >= 0 && number < vocab()))
        return refuse(param,
                      fmt::format("{}[{}] is not a token id: they go from 0 to {}", param, tokens.size(), vocab() - 1));
      tokens.push_back(id.get<TokenId>());
    }
    return tokens;
  }

  tl::unexpected<ApiError> too_long(const char* param, size_t tokens) const {
    return refuse(param, ServedModel::too_long(max_model_len_, tokens).detail, "context_length_exceeded");
  }

  const Json& body_;
  const ServedModel& model_;
  const uint32_t max_model_len_;
  std::vector<std::string>& ignored_;
};

// What the lengths of the prompts bound.
Parsed<void> read_prompts(Endpoint endpoint, const Reader& reader, ApiRequest& request) {
  std::vector<std::vector<TokenId>> prompts;
  if (endpoint == Endpoint::kCompletions) {
    auto read = reader.read_prompts();
    if (!read) return tl::unexpected(read.error());
    prompts = std::move(*read);
  } else {
    auto read = reader.read_messages(reader.fitting());
    if (!read) return tl::unexpected(read.error());
    prompts.push_back(std::move(*read));
  }
  const auto choices = reader.read_choices(prompts.size());
  if (!choices) return tl::unexpected(choices.error());
  request.choices = *choices;
  size_t entries = 0;
  for (std::vector<TokenId>& prompt : prompts) {
    const auto asked = reader.read_output_tokens(endpoint, prompt.size());
    if (!asked) return tl::unexpected(asked.error());
    request.prompt_only = *asked == 0;
    const uint32_t output_tokens_max = std::max(*asked, 1u);
    const auto min_tokens = reader.read_min_tokens(output_tokens_max);
    if (!min_tokens) return tl::unexpected(min_tokens.error());
    request.work.sampling.min_tokens = *min_tokens;
    entries += (output_tokens_max + (request.echo ? prompt.size() : 0)) * *choices * request.work.logprob_count;
    if (&prompt == prompts.data()) {
      request.work.prompt = std::move(prompt);
      request.work.output_tokens_max = output_tokens_max;
    } else {
      request.more_prompts.push_back({std::move(prompt), output_tokens_max});
    }
  }
  if (entries > kLogprobEntriesMax)
    return refuse("logprobs", fmt::format("the answer may hold {} log-probabilities: at most {} are given; ask for "
                                          "fewer tokens, choices or logprobs",
                                          entries, kLogprobEntriesMax));
  return {};
}

Parsed<TokensRequest> parse_tokens(Route route, std::string_view body, const ServedModel& model, uint32_t max_model_len,
                                   Parsed<std::vector<TokenId>> (Reader::*read)() const) {
  const auto json = parse_request_json(body);
  if (!json) return tl::unexpected(json.error());
  std::vector<std::string> ignored = unknown_fields(route, *json);
  const Reader reader(*json, model, max_model_len, ignored);
  if (auto checked = reader.read_model(); !checked) return tl::unexpected(checked.error());
  if (auto checked = check_fields(route, *json); !checked) return tl::unexpected(checked.error());
  auto tokens = (reader.*read)();
  if (!tokens) return tl::unexpected(tokens.error());
  return TokensRequest{std::move(*tokens), std::move(ignored)};
}

}  // namespace

Parsed<TokensRequest> parse_tokenize_request(std::string_view body, const ServedModel& model, uint32_t max_model_len) {
  return parse_tokens(Route::kTokenize, body, model, max_model_len, &Reader::read_text_to_tokenize);
}

Parsed<TokensRequest> parse_detokenize_request(std::string_view body, const ServedModel& model,
                                               uint32_t max_model_len) {
  return parse_tokens(Route::kDetokenize, body, model, max_model_len, &Reader::read_tokens_to_spell);
}

Parsed<ApiRequest> parse_api_request(Endpoint endpoint, std::string_view body, const ServedModel& model,
                                     uint32_t max_model_len, uint64_t seed_default) {
  const auto json = parse_request_json(body);
  if (!json) return tl::unexpected(json.error());
  const Route route = endpoint == Endpoint::kCompletions ? Route::kCompletions : Route::kChatCompletions;
  ApiRequest request;
  request.ignored = unknown_fields(route, *json);
  const Reader reader(*json, model, max_model_len, request.ignored);
  request.endpoint = endpoint;
  auto name = reader.read_model();
  if (!name) return tl::unexpected(name.error());
  request.model = std::move(*name);
  if (auto checked = check_fields(route, *json); !checked) return tl::unexpected(checked.error());
  if (auto checked = reader.read_stream(request); !checked) return tl::unexpected(checked.error());
  auto stop = read_stop(*json);
  if (!stop) return tl::unexpected(stop.error());
  request.stop = std::move(*stop);
  auto sampling = reader.read_sampling(seed_default);
  if (!sampling) return tl::unexpected(sampling.error());
  request.work.sampling = std::move(*sampling);
  auto stop_tokens = reader.read_stop_tokens();
  if (!stop_tokens) return tl::unexpected(stop_tokens.error());
  request.work.stop_tokens = std::move(*stop_tokens);
  request.work.digest_logits = reader.flag("logit_digests");
  request.work.priority = reader.number<int32_t>("priority", 0);
  const auto logprob_count = reader.read_logprobs(endpoint);
  if (!logprob_count) return tl::unexpected(logprob_count.error());
  request.work.logprob_count = *logprob_count;
  request.echo = reader.flag("echo");
  request.work.score_prompt = request.echo && *logprob_count > 0;
  if (auto read = read_prompts(endpoint, reader, request); !read) return tl::unexpected(read.error());
  return request;
}

Parsed<std::vector<TokenId>> parse_public_prefix(std::string_view body, const ServedModel& model) {
  const auto json = parse_request_json(body);
  if (!json) return tl::unexpected(json.error());
  const bool chat = find_field(*json, "messages") != nullptr;
  const Json* const prompt = find_field(*json, "prompt");
  if (!chat && prompt == nullptr) return refuse("prompt", "it needs messages, or prompt: text or a list of token ids");
  const Route route = chat ? Route::kChatCompletions : Route::kCompletions;
  if (auto checked = check_fields(route, *json); !checked) return tl::unexpected(checked.error());
  std::vector<std::string> unknown = unknown_fields(route, *json);
  const Reader reader(*json, model, model.max_model_len(), unknown);
  auto tokens = chat ? reader.read_messages(reader.counted(), ServedModel::AnswerTurn::kNone)
                     : reader.read_prompt(*prompt, reader.counted());
  if (!unknown.empty()) return refuse(unknown.front(), "it is no field of such a prefix");
  const size_t most = std::min<size_t>(kPublicPrefixTokensMax, model.max_model_len() - 1);
  if (tokens && (tokens->empty() || tokens->size() > most))
    return refuse("", fmt::format("it has {} tokens: a public prefix has 1 to {}", tokens->size(), most));
  return tokens;
}

}  // namespace spillway
