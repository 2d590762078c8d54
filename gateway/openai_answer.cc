#include "gateway/openai_answer.h"

#include <utility>

#include "gateway/sse.h"

namespace spillway {

OpenAiAnswer::OpenAiAnswer(AnswerHead head, const Tokenizer& tokenizer, bool digests)
    : head_(std::move(head)), detokenizer_(tokenizer), digests_(digests) {}

void OpenAiAnswer::stream_token(const StreamToken& token, std::string& out) {
  append_sse_event(out, token_chunk(head_, text_of(token), describe(token), std::exchange(first_, false)));
}

void OpenAiAnswer::stream_end(const StreamEnd& end, std::string& out) {
  append_sse_event(out, finish_chunk(head_, detokenizer_.finish(), end, std::exchange(first_, false)));
  if (head_.usage_null) append_sse_event(out, usage_chunk(head_, end.waterfall));
  append_sse_event(out, kSseDone);
}

void OpenAiAnswer::stream_error(const ApiError& error, std::string& out) { append_sse_event(out, error_body(error)); }

void OpenAiAnswer::add_token(const StreamToken& token) {
  text_ += text_of(token);
  if (digests_) tokens_.push_back(describe(token));
}

std::string OpenAiAnswer::body(const StreamEnd& end) {
  text_ += detokenizer_.finish();
  return answer_body(head_, text_, tokens_, end);
}

std::string OpenAiAnswer::text_of(const StreamToken& token) {
  return token.stops ? std::string() : detokenizer_.push(token.token);
}

AnswerToken OpenAiAnswer::describe(const StreamToken& token) const {
  AnswerToken described{token.token, std::nullopt};
  if (digests_) described.logits_digest = token.logits_digest;
  return described;
}

}  // namespace spillway
