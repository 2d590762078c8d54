#include "text/template_lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "text/python_string.h"
#include "text/string_literal.h"
#include "text/utf8.h"

namespace spillway {
namespace {

using Kind = TemplateTokenKind;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_begin(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

// Every line end as \n, and none at the end of the source.
std::string with_plain_newlines(std::string_view source) {
  std::string plain;
  for (size_t index = 0; index < source.size(); ++index) {
    if (source[index] == '\r') {
      plain += '\n';
      if (index + 1 < source.size() && source[index + 1] == '\n') ++index;
    } else {
      plain += source[index];
    }
  }
  if (plain.ends_with('\n')) plain.pop_back();
  return plain;
}

// The first failure sticks and ends every loop, by moving to the end of the source.
class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(with_plain_newlines(source)) {}
  Result<std::vector<TemplateToken>> run();

 private:
  void lex_text();
  std::string_view strip_before_tag(std::string_view text, size_t text_begin, char tag, char sign) const;
  void skip_comment(size_t begin);
  void lex_tag(size_t begin, char tag);
  bool at_tag_end(char tag);
  void lex_number();
  void lex_name();
  void lex_string();
  void lex_operator();
  bool balance(char bracket);

  bool done() const { return position_ >= source_.size(); }
  bool looking_at(std::string_view text) const { return source_.compare(position_, text.size(), text) == 0; }
  void skip_space();
  TemplatePosition place(size_t offset);
  void push(Kind kind, size_t offset, std::string text = {}, int64_t number = 0);
  void fail_at(size_t offset, ErrorCode code, std::string_view what);

  const std::string source_;
  size_t position_ = 0;
  std::vector<TemplateToken> tokens_;
  std::string open_brackets_;
  std::optional<Error> error_;
  // Of place(), which is asked in ascending order.
  size_t counted_ = 0;
  TemplatePosition counted_place_;
};

Result<std::vector<TemplateToken>> Lexer::run() {
  while (!done()) lex_text();
  if (error_) return tl::unexpected<Error>(*error_);
  push(Kind::kEnd, source_.size());
  return std::move(tokens_);
}

// Text up to the next tag, and that tag.
void Lexer::lex_text() {
  const size_t text_begin = position_;
  size_t tag_begin = source_.find('{', position_);
  while (tag_begin != std::string::npos &&
         (tag_begin + 1 == source_.size() || std::string_view("%{#").find(source_[tag_begin + 1]) == std::string::npos))
    tag_begin = source_.find('{', tag_begin + 1);
  if (tag_begin == std::string::npos) {
    push(Kind::kText, text_begin, source_.substr(text_begin));
    position_ = source_.size();
    return;
  }
  const char tag = source_[tag_begin + 1];
  position_ = tag_begin + 2;
  char sign = ' ';
  if (looking_at("-") || looking_at("+")) sign = source_[position_++];
  const std::string_view text =
      strip_before_tag(std::string_view(source_).substr(text_begin, tag_begin - text_begin), text_begin, tag, sign);
  if (!text.empty()) push(Kind::kText, text_begin, std::string(text));
  if (tag == '#') return skip_comment(tag_begin);
  lex_tag(tag_begin, tag);
}

std::string_view Lexer::strip_before_tag(std::string_view text, size_t text_begin, char tag, char sign) const {
  if (sign == '-') return python_strip(text, StripSides::kRight);
  if (sign == '+' || tag == '{') return text;
  const size_t line_begin = text.rfind('\n') + 1;  // 0 without a newline
  const bool begins_line = line_begin > 0 || text_begin == 0 || source_[text_begin - 1] == '\n';
  if (!begins_line || !python_strip(text.substr(line_begin), StripSides::kLeft).empty()) return text;
  return text.substr(0, line_begin);
}

void Lexer::skip_comment(size_t begin) {
  const size_t body = position_;
  const size_t end = source_.find("#}", body);
  if (end == std::string::npos) return fail_at(begin, ErrorCode::kInvalidArgument, "this comment does not end");
  position_ = end + 2;
  const char sign = end > body ? source_[end - 1] : ' ';
  if (sign == '-') {
    skip_space();
  } else if (sign != '+' && looking_at("\n")) {
    ++position_;
  }
}

void Lexer::lex_tag(size_t begin, char tag) {
  push(tag == '{' ? Kind::kVariableBegin : Kind::kBlockBegin, begin);
  while (!error_) {
    skip_space();
    if (open_brackets_.empty() && at_tag_end(tag)) return;
    if (done()) return fail_at(begin, ErrorCode::kInvalidArgument, "this tag does not end");
    const char c = source_[position_];
    if (is_digit(c)) {
      lex_number();
    } else if (is_name_begin(c)) {
      lex_name();
    } else if (c == '\'' || c == '"') {
      lex_string();
    } else {
      lex_operator();
    }
  }
}

// Passes the end of the tag, and what white space control takes with it.
bool Lexer::at_tag_end(char tag) {
  const std::string_view end = tag == '{' ? "}}" : "%}";
  const bool has_sign = looking_at("-") || (tag == '%' && looking_at("+"));
  if (source_.compare(position_ + (has_sign ? 1 : 0), end.size(), end) != 0) return false;
  const char sign = has_sign ? source_[position_] : ' ';
  push(tag == '{' ? Kind::kVariableEnd : Kind::kBlockEnd, position_);
  position_ += end.size() + (has_sign ? 1 : 0);
  if (sign == '-') {
    skip_space();
  } else if (sign == ' ' && tag == '%' && looking_at("\n")) {
    ++position_;
  }
  return true;
}

void Lexer::lex_number() {
  const size_t begin = position_;
  std::string digits;
  while (!done() && (is_digit(source_[position_]) || source_[position_] == '_')) {
    if (source_[position_] != '_') digits += source_[position_];
    ++position_;
  }
  const bool has_fraction =
      position_ + 1 < source_.size() && source_[position_] == '.' && is_digit(source_[position_ + 1]);
  if (has_fraction || (!done() && is_name_begin(source_[position_])))
    return fail_at(begin, ErrorCode::kUnsupported, "a number that is no decimal integer");
  if ((digits.size() > 1 && digits[0] == '0') || source_[position_ - 1] == '_')
    return fail_at(begin, ErrorCode::kInvalidArgument, "a malformed integer");
  int64_t number = 0;
  if (std::from_chars(digits.data(), digits.data() + digits.size(), number).ec != std::errc{})
    return fail_at(begin, ErrorCode::kUnsupported, "an integer of more than 64 bits");
  push(Kind::kInteger, begin, {}, number);
}

void Lexer::lex_name() {
  const size_t begin = position_;
  while (!done() && (is_name_begin(source_[position_]) || is_digit(source_[position_]))) ++position_;
  const std::string name = source_.substr(begin, position_ - begin);
  // What follows is no template source, so it must not be cut into tokens.
  if (name == "raw" && tokens_.back().kind == Kind::kBlockBegin)
    return fail_at(begin, ErrorCode::kUnsupported, "the statement \"raw\"");
  push(Kind::kName, begin, name);
}

void Lexer::lex_string() {
  const size_t begin = position_;
  const char quote = source_[position_];
  size_t end = begin + 1;
  while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
  if (end >= source_.size()) return fail_at(begin, ErrorCode::kInvalidArgument, "this string does not end");
  Result<std::string> text = resolve_escapes(std::string_view(source_).substr(begin + 1, end - begin - 1));
  if (!text) return fail_at(begin, text.error().code, text.error().detail);
  position_ = end + 1;
  push(Kind::kString, begin, std::move(*text));
}

void Lexer::lex_operator() {
  constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                             "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
  for (const std::string_view candidate : kOperators) {
    if (!looking_at(candidate)) continue;
    const size_t begin = position_;
    if (!balance(candidate[0])) return;
    position_ += candidate.size();
    return push(Kind::kOperator, begin, std::string(candidate));
  }
  const auto length = next_utf8(std::string_view(source_).substr(position_)).length;
  const bool is_ascii = length == 1;
  fail_at(position_, is_ascii ? ErrorCode::kInvalidArgument : ErrorCode::kUnsupported,
          fmt::format("the character {:?} in a tag", std::string_view(source_).substr(position_, length)));
}

// Inside brackets the end of a tag is not looked for: jinja2 does so, and it makes `}}` of a dictionary no end.
bool Lexer::balance(char bracket) {
  constexpr std::string_view kOpening = "([{", kClosing = ")]}";
  if (const size_t kind = kOpening.find(bracket); kind != std::string_view::npos) {
    open_brackets_ += kClosing[kind];
  } else if (kClosing.find(bracket) != std::string_view::npos) {
    if (open_brackets_.empty() || open_brackets_.back() != bracket) {
      fail_at(position_, ErrorCode::kInvalidArgument, fmt::format("\"{}\" closes nothing", bracket));
      return false;
    }
    open_brackets_.pop_back();
  }
  return true;
}

void Lexer::skip_space() {
  while (!done()) {
    const Utf8Step step = next_utf8(std::string_view(source_).substr(position_));
    if (!is_python_space(step.character)) return;
    position_ += step.length;
  }
}

TemplatePosition Lexer::place(size_t offset) {
  for (; counted_ < offset; ++counted_) {
    ++counted_place_.column;
    if (source_[counted_] == '\n') counted_place_ = {counted_place_.line + 1, 1};
  }
  return counted_place_;
}

void Lexer::push(Kind kind, size_t offset, std::string text, int64_t number) {
  tokens_.push_back({kind, std::move(text), number, place(offset)});
}

void Lexer::fail_at(size_t offset, ErrorCode code, std::string_view what) {
  if (!error_) {
    counted_ = 0;  // `offset` may lie before what place() has counted
    counted_place_ = {};
    error_ = template_error(code, place(offset), what);
  }
  position_ = source_.size();
}

}  // namespace

Error template_error(ErrorCode code, TemplatePosition position, std::string_view what) {
  return {code, fmt::format("chat template line {}, column {}: {}{}", position.line, position.column, what,
                            code == ErrorCode::kUnsupported ? " is not supported" : "")};
}

Result<std::vector<TemplateToken>> lex_template(std::string_view source) {
  if (source.size() > kTemplateBytesMax)
    return fail(ErrorCode::kInvalidArgument, fmt::format("the chat template has {} bytes, at most {} are accepted",
                                                         source.size(), kTemplateBytesMax));
  if (const size_t valid = valid_utf8_prefix(source); valid < source.size())
    return fail(ErrorCode::kInvalidArgument, fmt::format("the chat template is not valid UTF-8 at byte {}", valid));
  return Lexer(source).run();
}

}  // namespace spillway
