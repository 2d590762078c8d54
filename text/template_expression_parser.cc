#include "text/template_expression_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace spillway {
namespace {

using Ptr = TemplateExpressionPtr;
using TokenKind = TemplateTokenKind;

template <class... Rest>
std::vector<Ptr> list_of(Ptr first, Rest... rest) {
  std::vector<Ptr> list;
  list.push_back(std::move(first));
  (list.push_back(std::move(rest)), ...);
  return list;
}

}  // namespace

Ptr TemplateExpressionParser::make(Kind kind, TemplatePosition position, std::vector<Ptr> operands) {
  auto node = std::make_unique<TemplateExpression>();
  node->kind = kind;
  node->position = position;
  for (const Ptr& operand : operands)
    if (operand != nullptr) node->depth = std::max(node->depth, operand->depth + 1);
  node->operands = std::move(operands);
  if (node->depth > kTemplateDepthMax)
    tokens_.fail(ErrorCode::kInvalidArgument, position,
                 fmt::format("an expression of more than {} levels", kTemplateDepthMax));
  return node;
}

Ptr TemplateExpressionParser::unsupported(TemplatePosition position, std::string_view what) {
  tokens_.fail(ErrorCode::kUnsupported, position, what);
  return nullptr;
}

Ptr TemplateExpressionParser::parse_conditional() {
  if (nesting_ >= kTemplateNestingMax) {
    tokens_.fail(ErrorCode::kInvalidArgument, tokens_.current().position,
                 fmt::format("expressions nested more than {} deep", kTemplateNestingMax));
    return nullptr;
  }
  ++nesting_;
  Ptr value = parse_or();
  while (tokens_.at_name("if")) {
    const TemplatePosition position = tokens_.take().position;
    Ptr condition = parse_or();
    Ptr otherwise = tokens_.take_name("else") ? parse_conditional() : nullptr;
    value = make(Kind::kConditional, position, list_of(std::move(value), std::move(condition), std::move(otherwise)));
  }
  --nesting_;
  return value;
}

Ptr TemplateExpressionParser::parse_or() {
  const TemplatePosition position = tokens_.current().position;
  std::vector<Ptr> operands = list_of(parse_and());
  while (tokens_.take_name("or")) operands.push_back(parse_and());
  return operands.size() == 1 ? std::move(operands[0]) : make(Kind::kOr, position, std::move(operands));
}

Ptr TemplateExpressionParser::parse_and() {
  const TemplatePosition position = tokens_.current().position;
  std::vector<Ptr> operands = list_of(parse_not());
  while (tokens_.take_name("and")) operands.push_back(parse_not());
  return operands.size() == 1 ? std::move(operands[0]) : make(Kind::kAnd, position, std::move(operands));
}

Ptr TemplateExpressionParser::parse_not() {
  std::vector<TemplatePosition> positions;  // a loop, so that a thousand times "not" is no deep recursion
  while (tokens_.at_name("not")) positions.push_back(tokens_.take().position);
  Ptr value = parse_compare();
  for (; !positions.empty() && !tokens_.failed(); positions.pop_back())
    value = make(Kind::kNot, positions.back(), list_of(std::move(value)));
  return value;
}

Ptr TemplateExpressionParser::parse_compare() {
  constexpr std::string_view kComparisons[] = {"==", "!=", "<", "<=", ">", ">="};
  const TemplatePosition position = tokens_.current().position;
  std::vector<Ptr> operands = list_of(parse_sum());
  std::vector<std::string> operators;
  for (;;) {
    if (tokens_.at(TokenKind::kOperator) && std::ranges::count(kComparisons, tokens_.current().text) > 0) {
      operators.push_back(tokens_.take().text);
    } else if (tokens_.take_name("in")) {
      operators.emplace_back("in");
    } else if (tokens_.at_name("not") && tokens_.next_is_name("in")) {
      tokens_.take();
      tokens_.take();
      operators.emplace_back("not in");
    } else {
      break;
    }
    operands.push_back(parse_sum());
  }
  if (operators.empty()) return std::move(operands[0]);
  Ptr node = make(Kind::kCompare, position, std::move(operands));
  node->operators = std::move(operators);
  return node;
}

Ptr TemplateExpressionParser::parse_sum() {
  Ptr value = parse_concatenation();
  while (tokens_.at_operator("+") || tokens_.at_operator("-")) {
    const TemplateToken sign = tokens_.take();
    value = make(Kind::kArithmetic, sign.position, list_of(std::move(value), parse_concatenation()));
    value->operators = {sign.text};
  }
  return value;
}

Ptr TemplateExpressionParser::parse_concatenation() {
  const TemplatePosition position = tokens_.current().position;
  std::vector<Ptr> operands = list_of(parse_product());
  while (tokens_.take_operator("~")) operands.push_back(parse_product());
  return operands.size() == 1 ? std::move(operands[0]) : make(Kind::kConcatenate, position, std::move(operands));
}

Ptr TemplateExpressionParser::parse_product() {
  Ptr value = parse_unary();
  for (;;) {
    if (tokens_.at_operator("/") || tokens_.at_operator("**"))
      return unsupported(tokens_.current().position, fmt::format("the operator \"{}\"", tokens_.current().text));
    if (!tokens_.at_operator("*") && !tokens_.at_operator("//") && !tokens_.at_operator("%")) return value;
    const TemplateToken sign = tokens_.take();
    value = make(Kind::kArithmetic, sign.position, list_of(std::move(value), parse_unary()));
    value->operators = {sign.text};
  }
}

// As in jinja2 filters and tests bind less than the sign: -x|string is (-x)|string.
Ptr TemplateExpressionParser::parse_unary() {
  std::vector<TemplatePosition> signs;
  while (tokens_.at_operator("-")) signs.push_back(tokens_.take().position);
  if (tokens_.at_operator("+")) return unsupported(tokens_.current().position, "the sign \"+\"");
  Ptr value = parse_postfix(parse_primary());
  for (; !signs.empty() && !tokens_.failed(); signs.pop_back())
    value = make(Kind::kNegate, signs.back(), list_of(std::move(value)));
  return parse_filters(std::move(value));
}

Ptr TemplateExpressionParser::parse_primary() {
  const TemplateToken token = tokens_.current();
  switch (token.kind) {
    case TokenKind::kString: return parse_string();
    case TokenKind::kInteger: {
      Ptr node = make(Kind::kLiteral, tokens_.take().position, {});
      node->literal = {token.number};
      return node;
    }
    case TokenKind::kName: {
      tokens_.take();
      if (token.text == "raise_exception" && tokens_.at_operator("(")) return parse_raise(token);
      if (token.text == "namespace" && tokens_.at_operator("(")) return parse_namespace(token);
      if (tokens_.at_operator("(")) return parse_function(token);
      const bool is_true = token.text == "true" || token.text == "True";
      const bool is_flag = is_true || token.text == "false" || token.text == "False";
      const bool is_none = token.text == "none" || token.text == "None";
      Ptr node = make(is_flag || is_none ? Kind::kLiteral : Kind::kName, token.position, {});
      node->text = token.text;
      if (is_flag) node->literal = {is_true};
      if (is_none) node->literal = {TemplateNone{}};
      return node;
    }
    case TokenKind::kOperator: {
      if (token.text == "[") return parse_list();
      if (token.text == "{") return unsupported(token.position, "a dictionary literal");
      if (token.text != "(") break;
      tokens_.take();
      if (tokens_.at_operator(")")) return unsupported(token.position, "a tuple");
      Ptr inner = parse_conditional();
      if (tokens_.at_operator(",")) return unsupported(tokens_.current().position, "a tuple");
      tokens_.expect_operator(")");
      return inner;
    }
    case TokenKind::kText:
    case TokenKind::kVariableBegin:
    case TokenKind::kVariableEnd:
    case TokenKind::kBlockBegin:
    case TokenKind::kBlockEnd:
    case TokenKind::kEnd: break;
  }
  tokens_.fail_syntax("an expression");
  return nullptr;
}

Ptr TemplateExpressionParser::parse_string() {
  Ptr node = make(Kind::kLiteral, tokens_.current().position, {});
  while (tokens_.at(TokenKind::kString)) node->text += tokens_.take().text;  // neighbours are one
  node->literal = {std::string_view(node->text)};                            // the node stays where it is
  return node;
}

Ptr TemplateExpressionParser::parse_list() {
  const TemplatePosition position = tokens_.take().position;
  std::vector<Ptr> items;
  while (!tokens_.at_operator("]") && !tokens_.failed()) {
    items.push_back(parse_conditional());
    if (!tokens_.at_operator("]")) tokens_.expect_operator(",");
  }
  tokens_.expect_operator("]");
  return make(Kind::kList, position, std::move(items));
}

Ptr TemplateExpressionParser::parse_postfix(Ptr value) {
  for (;;) {
    if (tokens_.at_operator(".")) {
      value = parse_attribute(std::move(value));
    } else if (tokens_.at_operator("[")) {
      value = parse_item(std::move(value));
    } else if (tokens_.at_operator("(")) {
      return unsupported(tokens_.current().position, "a call of the result of an expression");
    } else {
      return value;
    }
  }
}

Ptr TemplateExpressionParser::parse_filters(Ptr value) {
  for (;;) {
    if (tokens_.at_operator("|")) {
      value = parse_filter(std::move(value));
    } else if (tokens_.at_name("is")) {
      value = parse_test(std::move(value));
    } else if (tokens_.at_operator("(")) {
      return unsupported(tokens_.current().position, "a call of the result of an expression");
    } else {
      return value;
    }
  }
}

Ptr TemplateExpressionParser::parse_attribute(Ptr value) {
  tokens_.take();
  const TemplateToken name = tokens_.current();
  if (name.kind == TokenKind::kInteger) return unsupported(name.position, "an integer as an attribute");
  tokens_.expect(TokenKind::kName);
  if (tokens_.at_operator("(")) {
    const TemplateBuiltin* const method = find_template_method(name.text);
    if (method == nullptr) return unsupported(name.position, fmt::format("the method \"{}\"", name.text));
    return call(Kind::kMethod, name, method, std::move(value), parse_arguments());
  }
  Ptr node = make(Kind::kAttribute, name.position, list_of(std::move(value)));
  node->text = name.text;
  return node;
}

Ptr TemplateExpressionParser::parse_item(Ptr value) {
  const TemplatePosition position = tokens_.take().position;
  const auto at_bound_end = [&] { return tokens_.at_operator(":") || tokens_.at_operator("]"); };
  std::vector<Ptr> operands = list_of(std::move(value));
  operands.push_back(tokens_.at_operator(":") ? nullptr : parse_conditional());
  bool is_slice = false;
  while (operands.size() < 4 && tokens_.take_operator(":")) {
    is_slice = true;
    operands.push_back(at_bound_end() ? nullptr : parse_conditional());
  }
  if (tokens_.at_operator(",")) return unsupported(tokens_.current().position, "a tuple as an index");
  tokens_.expect_operator("]");
  if (is_slice) operands.resize(4);
  return make(is_slice ? Kind::kSlice : Kind::kItem, position, std::move(operands));
}

Ptr TemplateExpressionParser::parse_filter(Ptr value) {
  tokens_.take();
  const TemplateToken name = tokens_.current();
  tokens_.expect(TokenKind::kName);
  const TemplateBuiltin* const filter = find_template_filter(name.text);
  if (filter == nullptr) return unsupported(name.position, fmt::format("the filter \"{}\"", name.text));
  std::vector<Argument> arguments;
  if (tokens_.at_operator("(")) arguments = parse_arguments();
  return call(Kind::kFilter, name, filter, std::move(value), std::move(arguments));
}

Ptr TemplateExpressionParser::parse_test(Ptr value) {
  tokens_.take();
  const Kind kind = tokens_.take_name("not") ? Kind::kNegatedTest : Kind::kTest;
  const TemplateToken name = tokens_.current();
  tokens_.expect(TokenKind::kName);
  const TemplateBuiltin* const test = find_template_test(name.text);
  if (test == nullptr) return unsupported(name.position, fmt::format("the test \"{}\"", name.text));
  std::vector<Argument> arguments;
  const TemplateToken& next = tokens_.current();
  if (tokens_.at_operator("(")) {
    arguments = parse_arguments();
  } else if (tokens_.at_name("is")) {
    return unsupported(next.position, "a test of a test");
  } else if (!test->arguments.empty() && (next.kind == TokenKind::kName || next.kind == TokenKind::kString ||
                                          next.kind == TokenKind::kInteger || tokens_.at_operator("["))) {
    const TemplatePosition position = next.position;
    arguments.push_back({{}, position, parse_postfix(parse_primary())});
  }
  return call(kind, name, test, std::move(value), std::move(arguments));
}

Ptr TemplateExpressionParser::parse_raise(const TemplateToken& name) {
  std::vector<Argument> arguments = parse_arguments();
  if (arguments.size() != 1 || !arguments[0].keyword.empty()) {
    tokens_.fail(ErrorCode::kInvalidArgument, name.position, "raise_exception() takes one argument");
    return nullptr;
  }
  return make(Kind::kRaise, name.position, list_of(std::move(arguments[0].value)));
}

Ptr TemplateExpressionParser::parse_function(const TemplateToken& name) {
  const TemplateBuiltin* const function = find_template_function(name.text);
  if (function == nullptr) return unsupported(name.position, fmt::format("the function \"{}\"", name.text));
  Ptr none = make(Kind::kLiteral, name.position, {});
  none->literal = {TemplateNone{}};
  return call(Kind::kFunction, name, function, std::move(none), parse_arguments());
}

Ptr TemplateExpressionParser::parse_namespace(const TemplateToken& name) {
  std::vector<Ptr> values;
  std::vector<std::string> names;
  for (Argument& argument : parse_arguments()) {
    if (argument.keyword.empty()) return unsupported(argument.position, "an argument of namespace() without a name");
    if (std::ranges::count(names, argument.keyword) > 0) {
      tokens_.fail(ErrorCode::kInvalidArgument, argument.position, "an argument is given twice");
      return nullptr;
    }
    values.push_back(std::move(argument.value));
    names.push_back(std::move(argument.keyword));
  }
  Ptr node = make(Kind::kNamespace, name.position, std::move(values));
  node->operators = std::move(names);
  return node;
}

std::vector<TemplateExpressionParser::Argument> TemplateExpressionParser::parse_arguments() {
  std::vector<Argument> arguments;
  tokens_.expect_operator("(");
  while (!tokens_.at_operator(")") && !tokens_.failed()) {
    Argument argument{{}, tokens_.current().position, parse_conditional()};
    if (tokens_.at_operator("=") && argument.value != nullptr && argument.value->kind == Kind::kName) {
      tokens_.take();
      argument.keyword = argument.value->text;
      argument.value = parse_conditional();
    }
    arguments.push_back(std::move(argument));
    if (!tokens_.at_operator(")")) tokens_.expect_operator(",");
  }
  tokens_.expect_operator(")");
  return arguments;
}

// Puts every argument in the place that the builtin knows it by.
Ptr TemplateExpressionParser::call(Kind kind, const TemplateToken& name, const TemplateBuiltin* builtin, Ptr value,
                                   std::vector<Argument> arguments) {
  std::vector<Ptr> operands(1 + builtin->arguments.size());
  operands[0] = std::move(value);
  size_t next_place = 0;
  for (Argument& argument : arguments) {
    const auto by_name = std::ranges::find(builtin->arguments, argument.keyword);
    const size_t place =
        argument.keyword.empty() ? next_place++ : static_cast<size_t>(by_name - builtin->arguments.begin());
    if (place >= builtin->arguments.size())
      return unsupported(argument.position,
                         argument.keyword.empty()
                             ? fmt::format("argument {} of \"{}\"", place + 1, name.text)
                             : fmt::format("the argument \"{}\" of \"{}\"", argument.keyword, name.text));
    if (operands[place + 1] != nullptr) {
      tokens_.fail(ErrorCode::kInvalidArgument, argument.position, "an argument is given twice");
      return nullptr;
    }
    operands[place + 1] = std::move(argument.value);
  }
  for (size_t place = 0; place < builtin->arguments_min; ++place)
    if (operands[place + 1] == nullptr)
      tokens_.fail(ErrorCode::kInvalidArgument, name.position, fmt::format("\"{}\" needs an argument", name.text));
  Ptr node = make(kind, name.position, std::move(operands));
  node->builtin = builtin;
  return node;
}

}  // namespace spillway
