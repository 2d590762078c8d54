#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "gateway/gateway.h"
#include "gateway/openai_logprobs.h"
#include "gateway/openai_response.h"
#include "gateway/stop_matcher.h"
#include "text/detokenizer.h"

namespace spillway {

// A streamed echo's event has at most so many tokens.
inline constexpr size_t kEchoTokensAnEvent = 64;

// What an answer is made of: choice i * choices_per_prompt + j is the j-th of prompt i.
struct AnswerShape {
  uint32_t prompts = 1, choices_per_prompt = 1;
  bool digests = false;              // the client asked for logit_digests; of one choice only
  bool logprobs = false;             // of each token
  bool prompt_only = false;          // max_tokens 0: the token that the nodes sample all the same is no part of it
  std::vector<std::string> stops{};  // end a choice and are no part of it
  std::vector<std::vector<TokenId>> echoed{};  // the prompts, in front of their choices; empty: no echo
};

// One answer in the making: what the gateway says about its requests becomes text, then JSON, then event-stream bytes.
// No I/O; one thread at a time. Borrows the tokenizer.
class OpenAiAnswer {
 public:
  OpenAiAnswer(AnswerHead head, const Tokenizer& tokenizer, AnswerShape shape);

  // Before the first token of any choice of the same prompt. The same ones may come again.
  void add_scores(size_t choice, const StreamScores& scores);

  // Of a stream: append the bytes of the events that this becomes. A token is always one event, also where its text is
  // empty (half a character, a special token, what may begin a stop string): clients time tokens by events.
  void stream_token(size_t choice, const StreamToken& token, std::string& out);
  // The finish chunk; behind the last choice's the usage chunk if asked for, and [DONE].
  void stream_end(size_t choice, const StreamEnd& end, std::string& out);
  static void stream_error(const ApiError& error, std::string& out);  // the last event; no [DONE] follows
  // An echoed prompt is sent before what the two above gave of its choices, in pieces that are made only when they can
  // be sent: with log-probabilities all of it may be 20 MB of JSON. Appends the next piece, one event. False: none is
  // left, and the rest may be sent.
  bool stream_echo(std::string& out);
  size_t echo_bytes() const { return echo_bytes_; }  // of log-probabilities kept for such pieces

  // Of an answer in one piece.
  void add_token(size_t choice, const StreamToken& token);
  void add_end(size_t choice, const StreamEnd& end);
  std::string body();  // REQUIRES done()
  bool has_logprobs() const { return shape_.logprobs; }
  size_t scored_tokens() const;  // that it holds, echoed ones counted for each choice

  // A stop string is complete: tokens that still come are ignored, and how the request ends changes nothing.
  bool stopped(size_t choice) const { return choices_[choice].matcher.matched(); }
  bool done() const { return ended_ == choices_.size(); }  // every choice has ended

 private:
  struct Choice {
    Detokenizer detokenizer;
    StopMatcher matcher;
    bool begun = false;    // streamed something
    size_t echo_told = 0;  // tokens of its echo that were streamed
    uint32_t token_count = 0;
    size_t characters = 0;              // of its text, what the matcher holds back included
    std::string text{};                 // of an answer in one piece
    std::vector<AnswerToken> tokens{};  // with digests only; at most output_tokens_max
    std::vector<ScoredToken> scored{};  // with logprobs, in one piece only; the same
    std::optional<StreamEnd> end{};
  };
  // A prompt in front of its choices. A character that it does not end is of their text.
  struct Echo {
    std::vector<ScoredToken> tokens{};
    std::string text{};
    std::vector<size_t> text_ends{};  // of each token: bytes of the text until it, as far as characters are whole
    size_t characters = 0;            // of the text
    Detokenizer detokenizer;          // behind its last token
    uint32_t streamed = 0;            // for so many choices in full: for all of them, its log-probabilities are gone
  };
  Echo echo(const std::vector<TokenId>& prompt) const;
  const Echo* echo_of(size_t choice) const;
  void begin(size_t choice);
  void echo_streamed(Echo& echo);
  std::string text_of(Choice& choice, const StreamToken& token);  // what it completes
  std::string last_text(Choice& choice);
  void end(Choice& choice, StreamEnd end);
  AnswerToken describe(const StreamToken& token) const;
  uint32_t tokens_so_far() const;
  Waterfall total() const;

  const AnswerHead head_;
  const Tokenizer& tokenizer_;
  const AnswerShape shape_;
  std::vector<Choice> choices_;
  std::vector<Echo> echoed_;   // one a prompt
  std::deque<size_t> echoes_;  // choices that have begun and whose echo is not all streamed
  uint32_t tokens_told_ = 0;   // so far, when the last of the rest was sent
  size_t echo_bytes_ = 0;
  size_t ended_ = 0;
};

}  // namespace spillway
