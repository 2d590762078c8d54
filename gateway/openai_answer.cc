#include "gateway/openai_answer.h"

#include <utility>

#include "gateway/sse.h"

namespace spillway {

OpenAiAnswer::OpenAiAnswer(AnswerHead head, const Tokenizer& tokenizer, bool digests, std::vector<std::string> stops)
    : head_(std::move(head)), detokenizer_(tokenizer), matcher_(std::move(stops)), digests_(digests) {}

void OpenAiAnswer::stream_token(const StreamToken& token, std::string& out) {
  if (stopped()) return;
  const std::string text = text_of(token);
  append_sse_event(out, token_chunk(head_, text, describe(token), std::exchange(first_, false)));
}

void OpenAiAnswer::stream_end(const StreamEnd& end, std::string& out) {
  const std::string text = last_text();
  const StreamEnd own = own_end(end);
  append_sse_event(out, finish_chunk(head_, text, own, std::exchange(first_, false)));
  if (head_.usage_null) append_sse_event(out, usage_chunk(head_, own.waterfall));
  append_sse_event(out, kSseDone);
}

void OpenAiAnswer::stream_error(const ApiError& error, std::string& out) { append_sse_event(out, error_body(error)); }

void OpenAiAnswer::add_token(const StreamToken& token) {
  if (stopped()) return;
  text_ += text_of(token);
  if (digests_) tokens_.push_back(describe(token));
}

std::string OpenAiAnswer::body(const StreamEnd& end) {
  text_ += last_text();
  return answer_body(head_, text_, tokens_, own_end(end));
}

std::string OpenAiAnswer::text_of(const StreamToken& token) {
  ++token_count_;
  return token.stops ? std::string() : matcher_.push(detokenizer_.push(token.token));
}

std::string OpenAiAnswer::last_text() {
  std::string text = matcher_.push(detokenizer_.finish());
  return text += matcher_.finish();
}

StreamEnd OpenAiAnswer::own_end(StreamEnd end) const {
  if (!stopped()) return end;
  end.finish = FinishReason::kStop;
  end.waterfall.output_tokens = token_count_;  // not those that were on their way when the stop string was found
  return end;
}

AnswerToken OpenAiAnswer::describe(const StreamToken& token) const {
  AnswerToken described{.token = token.token, .tokens_so_far = token_count_};
  if (digests_) described.logits_digest = token.logits_digest;
  return described;
}

}  // namespace spillway
