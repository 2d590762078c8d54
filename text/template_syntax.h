#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "text/template_builtins.h"
#include "text/template_lexer.h"
#include "text/template_value.h"

namespace spillway {

struct TemplateExpression;
using TemplateExpressionPtr = std::unique_ptr<TemplateExpression>;

// The syntax tree of a chat template: what the parser makes and the evaluator walks. Immutable once parsed.
struct TemplateExpression {
  enum class Kind : uint8_t {
    kLiteral,      // `literal`; of a string: `text`
    kName,         // `text`
    kList,         // operands: the items
    kNot,          // operand 0
    kNegate,       // operand 0
    kArithmetic,   // operands 0 and 1, operators[0]: + - * // %
    kConcatenate,  // operands: texts side by side (~)
    kCompare,      // operand 0, then operator i and operand i + 1: == != < <= > >= "in" "not in"
    kAnd,          // operands
    kOr,           // operands
    kConditional,  // operand 0 if operand 1 else operand 2 (null: undefined)
    kAttribute,    // operand 0 . `text`
    kItem,         // operand 0 [operand 1]
    kSlice,        // operand 0 [operand 1 : operand 2 : operand 3], each but the first may be null
    kFilter,       // operand 0, `builtin`, operands 1...: an argument each, null where not given
    kTest,         // as kFilter
    kNegatedTest,  // as kFilter: `is not`
    kMethod,       // as kFilter
    kFunction,     // as kFilter, operand 0 none
    kNamespace,    // namespace(operators[i]=operand i, ...)
    kRaise,        // raise_exception(operand 0)
  };
  Kind kind{};
  TemplatePosition position;
  uint32_t depth = 1;  // of the tree below, this one included
  std::string text;
  TemplateValue literal;
  std::vector<std::string> operators;
  const TemplateBuiltin* builtin = nullptr;
  std::vector<TemplateExpressionPtr> operands;
};

struct TemplateStatement {
  enum class Kind : uint8_t {
    kText,    // `text`
    kOutput,  // expression 0
    kIf,      // expression i decides for body i; a last body without an expression is the else
    kFor,     // for `text` (and `more`) in expression 0, if expression 1 (may be null): body 0; body 1, if there, when
              // nothing was
    kSet,     // `text` = expression 0; with `more` the attribute more[0] of the namespace `text`
  };
  using Body = std::vector<TemplateStatement>;
  Kind kind{};
  TemplatePosition position;
  std::string text;
  std::vector<TemplateExpressionPtr> expressions;
  std::vector<Body> bodies;
  std::vector<std::string> more{};
};

// Nesting of statements and brackets in the source: parser and evaluator recurse as deep, and into one expression's
// tree kTemplateDepthMax.
inline constexpr uint32_t kTemplateNestingMax = 64;

// kUnsupported names the construct, kInvalidArgument the broken syntax; both with line and column.
Result<TemplateStatement::Body> parse_template(std::string_view source);

}  // namespace spillway
