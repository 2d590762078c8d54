#pragma once

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "text/template_lexer.h"

namespace spillway {

// The tokens of a template under a parser's hands. The first error sticks, and from then on the current token is the
// end of the source: every loop of the parser ends by itself.
class TemplateTokens {
 public:
  explicit TemplateTokens(std::vector<TemplateToken> tokens) : tokens_(std::move(tokens)) {}

  const TemplateToken& current() const { return failed() ? tokens_.back() : tokens_[index_]; }
  bool at(TemplateTokenKind kind) const { return current().kind == kind; }
  bool at_operator(std::string_view text) const { return at(TemplateTokenKind::kOperator) && current().text == text; }
  bool at_name(std::string_view text) const { return at(TemplateTokenKind::kName) && current().text == text; }
  bool next_is_name(std::string_view text) const {
    return !failed() && index_ + 1 < tokens_.size() && tokens_[index_ + 1].kind == TemplateTokenKind::kName &&
           tokens_[index_ + 1].text == text;
  }
  // The current token; moves on, except from the end.
  TemplateToken take() {
    TemplateToken token = current();
    if (!failed() && index_ + 1 < tokens_.size()) ++index_;
    return token;
  }
  bool take_operator(std::string_view text);  // whether it was there
  bool take_name(std::string_view text);
  void expect_operator(std::string_view text);  // else an error
  void expect(TemplateTokenKind kind);

  void fail_syntax(std::string_view expected);  // at the current token: `expected` and what is there
  void fail(ErrorCode code, TemplatePosition position, std::string_view what);
  bool failed() const { return error_.has_value(); }
  const Error& error() const { return *error_; }  // REQUIRES: failed()

 private:
  std::vector<TemplateToken> tokens_;  // the last is kEnd
  size_t index_ = 0;
  std::optional<Error> error_;
};

}  // namespace spillway
