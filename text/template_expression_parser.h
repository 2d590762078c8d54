#pragma once

#include <span>
#include <string>
#include <vector>

#include "text/template_syntax.h"
#include "text/template_tokens.h"

namespace spillway {

// Parses the expressions of a template by recursive descent, with jinja2's precedences: from weak to strong inline if,
// or, and, not, comparisons, + -, ~, * // %, unary minus, then `.x`, `[x]`, calls, filters and tests. After an error
// (in `tokens`) what it returns is null or incomplete and must not be used.
class TemplateExpressionParser {
 public:
  explicit TemplateExpressionParser(TemplateTokens& tokens) : tokens_(tokens) {}
  TemplateExpressionPtr parse() { return parse_conditional(); }
  TemplateExpressionPtr parse_or();  // without inline if, where `if` means something else

 private:
  using Kind = TemplateExpression::Kind;
  struct Argument {
    std::string keyword;  // empty: by position
    TemplatePosition position;
    TemplateExpressionPtr value;
  };

  TemplateExpressionPtr parse_conditional();
  TemplateExpressionPtr parse_and();
  TemplateExpressionPtr parse_not();
  TemplateExpressionPtr parse_compare();
  TemplateExpressionPtr parse_sum();
  TemplateExpressionPtr parse_concatenation();
  TemplateExpressionPtr parse_product();
  TemplateExpressionPtr parse_unary();
  TemplateExpressionPtr parse_primary();
  TemplateExpressionPtr parse_string();
  TemplateExpressionPtr parse_list();
  TemplateExpressionPtr parse_postfix(TemplateExpressionPtr value);
  TemplateExpressionPtr parse_filters(TemplateExpressionPtr value);
  TemplateExpressionPtr parse_attribute(TemplateExpressionPtr value);
  TemplateExpressionPtr parse_item(TemplateExpressionPtr value);
  TemplateExpressionPtr parse_filter(TemplateExpressionPtr value);
  TemplateExpressionPtr parse_test(TemplateExpressionPtr value);
  TemplateExpressionPtr parse_raise(const TemplateToken& name);
  TemplateExpressionPtr parse_function(const TemplateToken& name);
  TemplateExpressionPtr parse_namespace(const TemplateToken& name);
  std::vector<Argument> parse_arguments();  // from "(" to ")"
  TemplateExpressionPtr call(Kind kind, const TemplateToken& name, const TemplateBuiltin* builtin,
                             TemplateExpressionPtr value, std::vector<Argument> arguments);

  TemplateExpressionPtr make(Kind kind, TemplatePosition position, std::vector<TemplateExpressionPtr> operands);
  TemplateExpressionPtr unsupported(TemplatePosition position, std::string_view what);

  TemplateTokens& tokens_;
  uint32_t nesting_ = 0;
};

}  // namespace spillway
