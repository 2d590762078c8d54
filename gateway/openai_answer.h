#pragma once

#include <string>
#include <vector>

#include "gateway/gateway.h"
#include "gateway/openai_response.h"
#include "gateway/stop_matcher.h"
#include "text/detokenizer.h"

namespace spillway {

// One answer in the making: what the gateway says about a request becomes text, then JSON, then event-stream bytes.
// No I/O; http thread. Borrows the tokenizer.
class OpenAiAnswer {
 public:
  // `digests`: the client asked for logit_digests. `stops`: strings that end it and are no part of it.
  OpenAiAnswer(AnswerHead head, const Tokenizer& tokenizer, bool digests, std::vector<std::string> stops);

  // Of a stream: append the bytes of the events that this becomes. A token is always one event, also where its text is
  // empty (half a character, a special token, what may begin a stop string): clients time tokens by events.
  void stream_token(const StreamToken& token, std::string& out);
  void stream_end(const StreamEnd& end, std::string& out);  // the finish chunk, the usage chunk if asked for, [DONE]
  static void stream_error(const ApiError& error, std::string& out);  // the last event; no [DONE] follows

  // Of an answer in one piece.
  void add_token(const StreamToken& token);
  std::string body(const StreamEnd& end);

  // A stop string is complete: tokens that still come are ignored, and how the request ends changes nothing.
  bool stopped() const { return matcher_.matched(); }

 private:
  std::string text_of(const StreamToken& token);  // what it completes
  std::string last_text();
  StreamEnd own_end(StreamEnd end) const;
  AnswerToken describe(const StreamToken& token) const;

  AnswerHead head_;
  Detokenizer detokenizer_;
  StopMatcher matcher_;
  uint32_t token_count_ = 0;
  const bool digests_;
  bool first_ = true;
  std::string text_;
  std::vector<AnswerToken> tokens_;  // with digests only; at most output_tokens_max
};

}  // namespace spillway
