#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "text/template_expression_parser.h"
#include "text/template_syntax.h"
#include "text/template_tokens.h"

namespace spillway {
namespace {

using TokenKind = TemplateTokenKind;
using Statement = TemplateStatement;
using Ends = std::initializer_list<std::string_view>;

// Parses text and statements; expressions are TemplateExpressionParser's.
class TemplateParser {
 public:
  explicit TemplateParser(TemplateTokens tokens) : tokens_(std::move(tokens)), expressions_(tokens_) {}
  Result<Statement::Body> run();

 private:
  // Up to a block that begins with one of `ends`: the name is taken, what follows it is not. Without `ends` up to the
  // end of the template.
  Statement::Body parse_body(Ends ends, std::string& end);
  Statement parse_output();
  Statement parse_block(const TemplateToken& name);
  Statement parse_if(TemplatePosition position);
  Statement parse_for(TemplatePosition position);
  Statement parse_set(TemplatePosition position);
  std::string parse_target();
  void reject_tuple();

  TemplateTokens tokens_;
  TemplateExpressionParser expressions_;
  uint32_t nesting_ = 0;
};

Result<Statement::Body> TemplateParser::run() {
  std::string end;
  Statement::Body body = parse_body({}, end);
  if (tokens_.failed()) return tl::unexpected<Error>(tokens_.error());
  return body;
}

Statement::Body TemplateParser::parse_body(Ends ends, std::string& end) {
  Statement::Body body;
  if (++nesting_ > kTemplateNestingMax)
    tokens_.fail(ErrorCode::kInvalidArgument, tokens_.current().position,
                 fmt::format("statements nested more than {} deep", kTemplateNestingMax));
  while (!tokens_.at(TokenKind::kEnd)) {
    if (tokens_.at(TokenKind::kText)) {
      TemplateToken token = tokens_.take();
      body.push_back({Statement::Kind::kText, token.position, std::move(token.text), {}, {}});
    } else if (tokens_.at(TokenKind::kVariableBegin)) {
      body.push_back(parse_output());
    } else {
      tokens_.expect(TokenKind::kBlockBegin);
      const TemplateToken name = tokens_.current();
      tokens_.expect(TokenKind::kName);
      if (std::ranges::count(ends, std::string_view(name.text)) > 0) {
        end = name.text;
        --nesting_;
        return body;
      }
      body.push_back(parse_block(name));
    }
  }
  if (ends.size() > 0) tokens_.fail_syntax(fmt::format("{{% {} %}}", *(ends.end() - 1)));
  --nesting_;
  return body;
}

Statement TemplateParser::parse_output() {
  Statement statement{Statement::Kind::kOutput, tokens_.take().position, {}, {}, {}};
  statement.expressions.push_back(expressions_.parse());
  reject_tuple();
  tokens_.expect(TokenKind::kVariableEnd);
  return statement;
}

Statement TemplateParser::parse_block(const TemplateToken& name) {
  if (name.text == "if") return parse_if(name.position);
  if (name.text == "for") return parse_for(name.position);
  if (name.text == "set") return parse_set(name.position);
  const bool is_misplaced = name.text.starts_with("end") || name.text == "else" || name.text == "elif";
  if (is_misplaced) {
    tokens_.fail(ErrorCode::kInvalidArgument, name.position, fmt::format("{{% {} %}} belongs to nothing", name.text));
  } else {
    tokens_.fail(ErrorCode::kUnsupported, name.position, fmt::format("the statement \"{}\"", name.text));
  }
  return {};
}

Statement TemplateParser::parse_if(TemplatePosition position) {
  Statement statement{Statement::Kind::kIf, position, {}, {}, {}};
  std::string end = "elif";
  while (end == "elif") {
    statement.expressions.push_back(expressions_.parse_or());
    reject_tuple();
    tokens_.expect(TokenKind::kBlockEnd);
    statement.bodies.push_back(parse_body({"elif", "else", "endif"}, end));
    if (tokens_.failed()) return statement;
  }
  if (end == "else") {
    tokens_.expect(TokenKind::kBlockEnd);
    statement.bodies.push_back(parse_body({"endif"}, end));
  }
  tokens_.expect(TokenKind::kBlockEnd);
  return statement;
}

Statement TemplateParser::parse_for(TemplatePosition position) {
  Statement statement{Statement::Kind::kFor, position, parse_target(), {}, {}};
  while (tokens_.take_operator(",")) statement.more.push_back(parse_target());
  if (!tokens_.take_name("in")) tokens_.fail_syntax("\"in\"");
  statement.expressions.push_back(expressions_.parse_or());
  reject_tuple();
  statement.expressions.push_back(tokens_.take_name("if") ? expressions_.parse() : nullptr);
  if (tokens_.at_name("recursive"))
    tokens_.fail(ErrorCode::kUnsupported, tokens_.current().position, "a recursive loop");
  tokens_.expect(TokenKind::kBlockEnd);
  std::string end;
  statement.bodies.push_back(parse_body({"else", "endfor"}, end));
  if (end == "else") {
    tokens_.expect(TokenKind::kBlockEnd);
    statement.bodies.push_back(parse_body({"endfor"}, end));
  }
  tokens_.expect(TokenKind::kBlockEnd);
  return statement;
}

Statement TemplateParser::parse_set(TemplatePosition position) {
  Statement statement{Statement::Kind::kSet, position, parse_target(), {}, {}};
  reject_tuple();
  if (tokens_.take_operator(".")) {
    statement.more.push_back(tokens_.current().text);
    tokens_.expect(TokenKind::kName);
    reject_tuple();
  }
  if (tokens_.at(TokenKind::kBlockEnd) || tokens_.at_operator("|"))
    tokens_.fail(ErrorCode::kUnsupported, position, "a set block");
  tokens_.expect_operator("=");
  statement.expressions.push_back(expressions_.parse());
  reject_tuple();
  tokens_.expect(TokenKind::kBlockEnd);
  return statement;
}

// The name of a variable that is assigned to.
std::string TemplateParser::parse_target() {
  constexpr std::string_view kReserved[] = {"true", "True", "false", "False", "none", "None", "loop"};
  const TemplateToken name = tokens_.current();
  if (tokens_.at_operator("(")) tokens_.fail(ErrorCode::kUnsupported, name.position, "a tuple");
  tokens_.expect(TokenKind::kName);
  if (std::ranges::count(kReserved, name.text) > 0)
    tokens_.fail(ErrorCode::kInvalidArgument, name.position, fmt::format("\"{}\" cannot be assigned to", name.text));
  return name.text;
}

void TemplateParser::reject_tuple() {
  if (tokens_.at_operator(",")) tokens_.fail(ErrorCode::kUnsupported, tokens_.current().position, "a tuple");
}

}  // namespace

Result<Statement::Body> parse_template(std::string_view source) {
  Result<std::vector<TemplateToken>> tokens = lex_template(source);
  if (!tokens) return tl::unexpected<Error>(tokens.error());
  return TemplateParser(TemplateTokens(std::move(*tokens))).run();
}

}  // namespace spillway
