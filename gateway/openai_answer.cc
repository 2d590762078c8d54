#include "gateway/openai_answer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "common/check.h"
#include "gateway/sse.h"

namespace spillway {

using Json = nlohmann::ordered_json;

OpenAiAnswer::OpenAiAnswer(AnswerHead head, const Tokenizer& tokenizer, AnswerShape shape)
    : head_(std::move(head)), tokenizer_(tokenizer), shape_(std::move(shape)) {
  CHECK(shape_.echoed.empty() || shape_.echoed.size() == shape_.prompts);
  for (const std::vector<TokenId>& prompt : shape_.echoed) echoed_.push_back(echo(prompt));
  for (uint32_t index = 0; index < shape_.prompts * shape_.choices_per_prompt; ++index) {
    const Echo* const echo = echo_of(index);
    choices_.push_back({.detokenizer = echo != nullptr ? echo->detokenizer : Detokenizer(tokenizer_),
                        .matcher = StopMatcher(shape_.stops),
                        .characters = echo != nullptr ? echo->characters : 0});
  }
}

// Special tokens are spelled, as the prompt may have spelled them.
OpenAiAnswer::Echo OpenAiAnswer::echo(const std::vector<TokenId>& prompt) const {
  Echo echo{.detokenizer = Detokenizer(tokenizer_)};
  for (const TokenId token : prompt) {
    echo.tokens.push_back({.token = token, .text_offset = echo.characters});
    const std::string text = echo.detokenizer.push_bytes(tokenizer_.token_bytes(token));
    echo.characters += character_count(text);
    echo.text += text;
    echo.text_ends.push_back(echo.text.size());
  }
  return echo;
}

const OpenAiAnswer::Echo* OpenAiAnswer::echo_of(size_t choice) const {
  return echoed_.empty() ? nullptr : &echoed_[choice / shape_.choices_per_prompt];
}

void OpenAiAnswer::add_scores(size_t choice, const StreamScores& scores) {
  if (echoed_.empty() || echo_of(choice)->streamed == shape_.choices_per_prompt) return;
  std::vector<ScoredToken>& echo = echoed_[choice / shape_.choices_per_prompt].tokens;
  const size_t count = scores.logprobs.size() / scores.logprob_count;
  CHECK(scores.position_first + count <= echo.size());
  for (size_t index = 0; index < count; ++index) {
    const auto first = scores.logprobs.begin() + static_cast<ptrdiff_t>(index * scores.logprob_count);
    std::vector<TokenLogprob>& logprobs = echo[scores.position_first + index].logprobs;
    if (logprobs.empty()) echo_bytes_ += scores.logprob_count * sizeof(TokenLogprob);
    logprobs.assign(first, first + scores.logprob_count);
  }
}

void OpenAiAnswer::begin(size_t choice) {
  if (echo_of(choice) != nullptr && !choices_[choice].begun) echoes_.push_back(choice);
}

bool OpenAiAnswer::stream_echo(std::string& out) {
  if (echoes_.empty()) {
    tokens_told_ = tokens_so_far();
    return false;
  }
  const size_t index = echoes_.front();
  Choice& choice = choices_[index];
  const Echo& echo = *echo_of(index);
  const std::span<const ScoredToken> rest = std::span(echo.tokens).subspan(choice.echo_told);
  const std::span<const ScoredToken> part = rest.first(std::min(rest.size(), kEchoTokensAnEvent));
  const size_t begin = choice.echo_told == 0 ? 0 : echo.text_ends[choice.echo_told - 1];
  const size_t end = echo.text_ends[choice.echo_told + part.size() - 1];
  const std::string_view text = std::string_view(echo.text).substr(begin, end - begin);
  const Json logprobs = shape_.logprobs ? logprobs_json(head_.endpoint, tokenizer_, part) : Json();
  const ChoicePiece piece{.index = index, .text = text, .logprobs = &logprobs, .first = choice.echo_told == 0};
  append_sse_event(out, token_chunk(head_, piece, {.tokens_so_far = tokens_told_}));
  choice.echo_told += part.size();
  if (part.size() < rest.size()) return true;
  echoes_.pop_front();
  echo_streamed(echoed_[index / shape_.choices_per_prompt]);
  return true;
}

void OpenAiAnswer::echo_streamed(Echo& echo) {
  if (++echo.streamed < shape_.choices_per_prompt) return;
  for (ScoredToken& token : echo.tokens) {
    echo_bytes_ -= token.logprobs.size() * sizeof(TokenLogprob);
    token.logprobs = std::vector<TokenLogprob>();  // {} would keep the memory
  }
}

void OpenAiAnswer::stream_token(size_t index, const StreamToken& token, std::string& out) {
  Choice& choice = choices_[index];
  if (stopped(index) || shape_.prompt_only) return;
  begin(index);
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
  begin(index);
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
    const Echo* const echo = echo_of(index);
    if (echo != nullptr) choice.text = echo->text + choice.text;
    if (shape_.logprobs) {
      std::vector<ScoredToken> all;
      if (echo != nullptr) all = echo->tokens;
      all.insert(all.end(), choice.scored.begin(), choice.scored.end());
      logprobs[index] = logprobs_json(head_.endpoint, tokenizer_, all);
    }
    pieces.push_back({.index = index, .text = choice.text, .finish = choice.end->finish, .logprobs = &logprobs[index]});
  }
  return answer_body(head_, pieces, choices_.front().tokens, total());
}

size_t OpenAiAnswer::scored_tokens() const {
  size_t count = 0;
  for (size_t index = 0; index < choices_.size(); ++index)
    count += choices_[index].scored.size() + (echoed_.empty() ? 0 : echo_of(index)->tokens.size());
  return count;
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
