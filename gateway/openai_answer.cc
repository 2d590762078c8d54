#include "gateway/openai_answer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/check.h"
#include "gateway/sse.h"

namespace spillway {

using Json = nlohmann::ordered_json;

OpenAiAnswer::OpenAiAnswer(AnswerHead head, const Tokenizer& tokenizer, AnswerShape shape)
    : head_(std::move(head)), tokenizer_(tokenizer), shape_(std::move(shape)) {
  CHECK(shape_.echoed.empty() || shape_.echoed.size() == shape_.prompts);
  for (const std::vector<TokenId>& prompt : shape_.echoed) {
    size_t characters = 0;
    std::vector<ScoredToken>& echo = echoed_.emplace_back();
    for (const TokenId token : prompt) {
      echo.push_back({.token = token, .text_offset = characters});
      characters += character_count(tokenizer.token_bytes(token));
    }
  }
  for (uint32_t index = 0; index < shape_.prompts * shape_.choices_per_prompt; ++index) {
    choices_.push_back({.detokenizer = Detokenizer(tokenizer_), .matcher = StopMatcher(shape_.stops)});
    choices_.back().characters = character_count(echo_text(index));
  }
}

const std::vector<ScoredToken>* OpenAiAnswer::echo_of(size_t choice) const {
  return echoed_.empty() ? nullptr : &echoed_[choice / shape_.choices_per_prompt];
}

std::string OpenAiAnswer::echo_text(size_t choice) const {
  std::string text;
  if (const auto* const echo = echo_of(choice))
    for (const ScoredToken& one : *echo) text += tokenizer_.token_bytes(one.token);
  return text;
}

void OpenAiAnswer::add_scores(size_t choice, const StreamScores& scores) {
  if (echoed_.empty()) return;
  std::vector<ScoredToken>& echo = echoed_[choice / shape_.choices_per_prompt];
  const size_t count = scores.logprobs.size() / scores.logprob_count;
  CHECK(scores.position_first + count <= echo.size());
  for (size_t index = 0; index < count; ++index) {
    const auto first = scores.logprobs.begin() + static_cast<ptrdiff_t>(index * scores.logprob_count);
    echo[scores.position_first + index].logprobs.assign(first, first + scores.logprob_count);
  }
}

void OpenAiAnswer::stream_echo(size_t choice, std::string& out) {
  const auto* const echo = echo_of(choice);
  if (echo == nullptr || choices_[choice].begun) return;
  const std::string text = echo_text(choice);
  ChoicePiece piece{.index = choice, .text = text, .first = !std::exchange(choices_[choice].begun, true)};
  const Json logprobs = shape_.logprobs ? logprobs_json(head_.endpoint, tokenizer_, *echo) : Json();
  piece.logprobs = &logprobs;
  append_sse_event(out, token_chunk(head_, piece, {.tokens_so_far = tokens_so_far()}));
}

void OpenAiAnswer::stream_token(size_t index, const StreamToken& token, std::string& out) {
  Choice& choice = choices_[index];
  if (stopped(index) || shape_.prompt_only) return;
  stream_echo(index, out);
  const size_t offset = choice.characters;
  const std::string text = text_of(choice, token);
  ChoicePiece piece{.index = index, .text = text, .first = !std::exchange(choice.begun, true)};
  const ScoredToken scored{token.token, token.logprobs, offset};
  const Json logprobs = shape_.logprobs ? logprobs_json(head_.endpoint, tokenizer_, {&scored, 1}) : Json();
  piece.logprobs = &logprobs;
  append_sse_event(out, token_chunk(head_, piece, describe(token)));
}

void OpenAiAnswer::stream_end(size_t index, const StreamEnd& end, std::string& out) {
  Choice& choice = choices_[index];
  stream_echo(index, out);
  const std::string text = last_text(choice);
  this->end(choice, end);
  const ChoicePiece piece{
      .index = index, .text = text, .finish = choice.end->finish, .first = !std::exchange(choice.begun, true)};
  append_sse_event(out, finish_chunk(head_, piece, choice.end->waterfall, tokens_so_far()));
  if (!done()) return;
  if (head_.usage_null) append_sse_event(out, usage_chunk(head_, total()));
  append_sse_event(out, kSseDone);
}

void OpenAiAnswer::stream_error(const ApiError& error, std::string& out) { append_sse_event(out, error_body(error)); }

void OpenAiAnswer::add_token(size_t index, const StreamToken& token) {
  Choice& choice = choices_[index];
  if (stopped(index) || shape_.prompt_only) return;
  if (shape_.logprobs) choice.scored.push_back({token.token, token.logprobs, choice.characters});
  choice.text += text_of(choice, token);
  if (shape_.digests) choice.tokens.push_back(describe(token));
}

void OpenAiAnswer::add_end(size_t index, const StreamEnd& end) {
  choices_[index].text += last_text(choices_[index]);
  this->end(choices_[index], end);
}

std::string OpenAiAnswer::body() {
  CHECK(done());
  std::vector<Json> logprobs(choices_.size());
  std::vector<ChoicePiece> pieces;
  for (size_t index = 0; index < choices_.size(); ++index) {
    Choice& choice = choices_[index];
    choice.text = echo_text(index) + choice.text;
    if (shape_.logprobs) {
      std::vector<ScoredToken> all;
      if (const auto* const echo = echo_of(index)) all = *echo;
      all.insert(all.end(), choice.scored.begin(), choice.scored.end());
      logprobs[index] = logprobs_json(head_.endpoint, tokenizer_, all);
    }
    pieces.push_back({.index = index, .text = choice.text, .finish = choice.end->finish, .logprobs = &logprobs[index]});
  }
  return answer_body(head_, pieces, choices_.front().tokens, total());
}

std::string OpenAiAnswer::text_of(Choice& choice, const StreamToken& token) {
  ++choice.token_count;
  if (token.stops) return {};
  const std::string text = choice.detokenizer.push(token.token);
  choice.characters += character_count(text);
  return choice.matcher.push(text);
}

std::string OpenAiAnswer::last_text(Choice& choice) {
  std::string text = choice.matcher.push(choice.detokenizer.finish());
  return text += choice.matcher.finish();
}

void OpenAiAnswer::end(Choice& choice, StreamEnd end) {
  CHECK(!choice.end);
  if (choice.matcher.matched()) {
    end.finish = FinishReason::kStop;
    // Not those that were on their way when the stop string was found.
    end.waterfall.output_tokens = choice.token_count;
  }
  if (shape_.prompt_only) {
    end.finish = FinishReason::kLength;
    end.waterfall.output_tokens = 0;
  }
  choice.end = std::move(end);
  ++ended_;
}

AnswerToken OpenAiAnswer::describe(const StreamToken& token) const {
  AnswerToken described{.token = token.token, .tokens_so_far = tokens_so_far()};
  if (shape_.digests) described.logits_digest = token.logits_digest;
  return described;
}

uint32_t OpenAiAnswer::tokens_so_far() const {
  uint32_t tokens = 0;
  for (const Choice& choice : choices_) tokens += choice.token_count;
  return tokens;
}

// Times of the choice that took longest; tokens of all, a prompt's once.
Waterfall OpenAiAnswer::total() const {
  const Choice& longest =
      *std::ranges::max_element(choices_, {}, [](const Choice& choice) { return choice.end->waterfall.total; });
  Waterfall total = longest.end->waterfall;
  total.prompt_tokens = total.output_tokens = total.prefill_cached_tokens = total.decode_cached_tokens = 0;
  for (size_t index = 0; index < choices_.size(); ++index) {
    const Waterfall& one = choices_[index].end->waterfall;
    total.output_tokens += one.output_tokens;
    if (index % shape_.choices_per_prompt > 0) continue;
    total.prompt_tokens += one.prompt_tokens;
    total.prefill_cached_tokens += one.prefill_cached_tokens;
    total.decode_cached_tokens += one.decode_cached_tokens;
  }
  return total;
}

}  // namespace spillway
