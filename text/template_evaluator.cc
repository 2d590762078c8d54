#include "text/template_evaluator.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "text/python_string.h"

namespace spillway {
namespace {

TemplateValue of_flag(bool flag) { return {flag}; }

}  // namespace

void TemplateEvaluator::execute(const TemplateStatement::Body& body) {
  for (const TemplateStatement& statement : body) {
    if (!run_.spend(statement.position, 1)) return;
    execute(statement);
  }
}

void TemplateEvaluator::execute(const TemplateStatement& statement) {
  switch (statement.kind) {
    case TemplateStatement::Kind::kText: return write(statement.position, statement.text);
    case TemplateStatement::Kind::kOutput:
      return write(statement.position, run_.to_text(statement.position, evaluate(*statement.expressions[0])));
    case TemplateStatement::Kind::kIf: return execute_if(statement);
    case TemplateStatement::Kind::kFor: return execute_for(statement);
    case TemplateStatement::Kind::kSet:
      if (!statement.more.empty()) return set_attribute(statement);
      return assign(statement.text, evaluate(*statement.expressions[0]));
  }
}

void TemplateEvaluator::execute_if(const TemplateStatement& statement) {
  size_t branch = 0;
  while (branch < statement.expressions.size() && !evaluate(*statement.expressions[branch]).is_true()) ++branch;
  if (branch < statement.bodies.size() && !run_.failed()) execute(statement.bodies[branch]);
}

// Each pass has its own scope: what it sets is gone in the next, as in jinja2.
void TemplateEvaluator::execute_for(const TemplateStatement& statement) {
  const TemplateList* const all = template_items(run_, statement.position, evaluate(*statement.expressions[0]));
  if (all == nullptr) return;
  TemplateList chosen;
  if (statement.expressions[1] != nullptr) chosen = filtered(statement, *all);
  const TemplateList& items = statement.expressions[1] != nullptr ? chosen : *all;
  for (size_t index = 0; index < items.size() && run_.spend(statement.position, 1); ++index) {
    const TemplateValue loop = run_.keep(statement.position, loop_state(items, index));
    scopes_.push_back(loop_scope(statement, items[index], loop));
    execute(statement.bodies[0]);
    scopes_.pop_back();
  }
  if (items.empty() && statement.bodies.size() > 1 && !run_.failed()) {
    scopes_.emplace_back();
    execute(statement.bodies[1]);
    scopes_.pop_back();
  }
}

TemplateList TemplateEvaluator::filtered(const TemplateStatement& loop, const TemplateList& items) {
  TemplateList chosen;
  for (const TemplateValue& item : items) {
    if (!run_.spend(loop.position, 1)) break;
    scopes_.push_back(loop_scope(loop, item, {TemplateUndefined{"\"loop\" in the condition of a loop"}}));
    if (evaluate(*loop.expressions[1]).is_true()) chosen.push_back(item);
    scopes_.pop_back();
  }
  return chosen;
}

TemplateDict TemplateEvaluator::loop_scope(const TemplateStatement& statement, const TemplateValue& item,
                                           const TemplateValue& loop) {
  if (statement.more.empty()) return {{statement.text, item}, {"loop", loop}};
  TemplateDict scope;
  const TemplateList* const parts = template_items(run_, statement.position, item);
  if (parts == nullptr) return scope;
  if (parts->size() != statement.more.size() + 1) {
    run_.fail(statement.position, ErrorCode::kInvalidArgument,
              fmt::format("{} values for {} names", parts->size(), statement.more.size() + 1));
    return scope;
  }
  scope.emplace_back(statement.text, parts->front());
  for (size_t place = 0; place < statement.more.size(); ++place)
    scope.emplace_back(statement.more[place], (*parts)[place + 1]);
  scope.emplace_back("loop", loop);
  return scope;
}

TemplateDict TemplateEvaluator::loop_state(const TemplateList& items, size_t index) const {
  const auto count = static_cast<int64_t>(items.size()), at = static_cast<int64_t>(index);
  const TemplateValue outside{TemplateUndefined{"an item outside the loop"}};
  return {{"index", {at + 1}},
          {"index0", {at}},
          {"revindex", {count - at}},
          {"revindex0", {count - at - 1}},
          {"first", {at == 0}},
          {"last", {at + 1 == count}},
          {"length", {count}},
          {"depth", {int64_t{1}}},  // of recursive loops, which are not supported
          {"depth0", {int64_t{0}}},
          {"previtem", at == 0 ? outside : items[index - 1]},
          {"nextitem", at + 1 == count ? outside : items[index + 1]}};
}

void TemplateEvaluator::write(TemplatePosition position, std::string_view text) {
  if (run_.failed()) return;
  if (text.size() > kTemplateOutputMax - output_.size()) {
    run_.fail(position, ErrorCode::kInvalidArgument,
              fmt::format("the rendered text has more than {} bytes", kTemplateOutputMax));
    return;
  }
  output_ += text;
}

void TemplateEvaluator::assign(std::string_view name, TemplateValue value) {
  TemplateDict& scope = scopes_.back();
  const auto entry = std::ranges::find(scope, name, &TemplateDict::value_type::first);
  if (entry != scope.end()) {
    entry->second = value;
  } else {
    scope.emplace_back(name, value);
  }
}

void TemplateEvaluator::set_attribute(const TemplateStatement& statement) {
  const TemplateValue value = evaluate(*statement.expressions[0]);
  TemplateNamespace* const space = look_up(statement.position, statement.text).space();
  if (run_.failed()) return;
  if (space == nullptr) {
    run_.fail(statement.position, ErrorCode::kInvalidArgument,
              fmt::format("{:?} is no namespace: its attributes cannot be set", statement.text));
    return;
  }
  run_.set(statement.position, *space, statement.more[0], value);
}

TemplateValue TemplateEvaluator::look_up(TemplatePosition position, std::string_view name) {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    run_.spend(position, scope->size() / 16);  // a template of 64 KiB may set thousands of names
    if (const TemplateValue* const value = find_key(*scope, name)) return *value;
  }
  return {TemplateUndefined{name}};
}

TemplateValue TemplateEvaluator::evaluate(const Expression& expression) {
  using Kind = Expression::Kind;
  if (!run_.spend(expression.position, 1)) return {};
  switch (expression.kind) {
    case Kind::kLiteral: return expression.literal;
    case Kind::kName: return look_up(expression.position, expression.text);
    case Kind::kList: return evaluate_list(expression);
    case Kind::kNot: return of_flag(!evaluate(*expression.operands[0]).is_true());
    case Kind::kAnd:
    case Kind::kOr: return evaluate_logic(expression);
    case Kind::kNegate:
    case Kind::kArithmetic: return evaluate_arithmetic(expression);
    case Kind::kConcatenate: return evaluate_concatenation(expression);
    case Kind::kCompare: return evaluate_compare(expression);
    case Kind::kConditional:
      if (evaluate(*expression.operands[1]).is_true()) return evaluate(*expression.operands[0]);
      if (expression.operands[2] != nullptr) return evaluate(*expression.operands[2]);
      return {TemplateUndefined{"an inline if without else"}};
    case Kind::kAttribute: return evaluate_attribute(expression);
    case Kind::kItem: return evaluate_item(expression);
    case Kind::kSlice: return evaluate_slice(expression);
    case Kind::kFilter:
    case Kind::kTest:
    case Kind::kFunction:
    case Kind::kMethod: return evaluate_call(expression);
    case Kind::kNamespace: return evaluate_namespace(expression);
    case Kind::kNegatedTest: return of_flag(!evaluate_call(expression).is_true());
    case Kind::kRaise: {
      const std::string_view reason = run_.to_text(expression.position, evaluate(*expression.operands[0]));
      return run_.fail({ErrorCode::kInvalidArgument, std::string(reason)});
    }
  }
  return {};
}

// `and` and `or` give the operand that decided.
TemplateValue TemplateEvaluator::evaluate_logic(const Expression& expression) {
  const bool decides = expression.kind == Expression::Kind::kOr;
  TemplateValue value;
  for (const TemplateExpressionPtr& operand : expression.operands) {
    value = evaluate(*operand);
    if (value.is_true() == decides) break;
  }
  return value;
}

// a < b < c is (a < b) and (b < c), each evaluated once.
TemplateValue TemplateEvaluator::evaluate_compare(const Expression& expression) {
  TemplateValue left = evaluate(*expression.operands[0]);
  for (size_t index = 0; index < expression.operators.size(); ++index) {
    const TemplateValue right = evaluate(*expression.operands[index + 1]);
    if (run_.failed() || !compare(expression.position, expression.operators[index], left, right)) return of_flag(false);
    left = right;
  }
  return of_flag(true);
}

bool TemplateEvaluator::compare(TemplatePosition position, std::string_view comparison, const TemplateValue& left,
                                const TemplateValue& right) {
  if (comparison == "==") return run_.equal(position, left, right);
  if (comparison == "!=") return !run_.equal(position, left, right);
  if (comparison == "in") return template_contains(run_, position, right, left);
  if (comparison == "not in") return !template_contains(run_, position, right, left);
  int64_t left_number = 0, right_number = 0;
  int order = 0;  // of left against right: UTF-8 bytes sort as Python's characters do
  if (left.text() != nullptr && right.text() != nullptr) {
    if (!run_.spend_scan(position, left.text()->size(), 1)) return false;
    order = left.text()->compare(*right.text());
  } else if (left.as_integer(left_number) && right.as_integer(right_number)) {
    order = left_number < right_number ? -1 : left_number > right_number;
  } else if (left.list() != nullptr && right.list() != nullptr) {
    run_.fail(position, ErrorCode::kUnsupported, "the order of lists");
    return false;
  } else {
    const bool left_is_to_blame = left.is_undefined() || !right.is_undefined();
    fail_on_type(run_, position, left_is_to_blame ? left : right, fmt::format("be compared by {}", comparison));
    return false;
  }
  if (comparison == "<") return order < 0;
  if (comparison == "<=") return order <= 0;
  return comparison == ">" ? order > 0 : order >= 0;
}

TemplateValue TemplateEvaluator::evaluate_arithmetic(const Expression& expression) {
  const TemplateValue left = evaluate(*expression.operands[0]);
  const bool negates = expression.kind == Expression::Kind::kNegate;
  const TemplateValue right = negates ? TemplateValue{int64_t{-1}} : evaluate(*expression.operands[1]);
  const char sign = negates ? '*' : expression.operators[0][0];
  if (run_.failed()) return {};
  if (sign == '+') return add(expression.position, left, right);
  int64_t a = 0, b = 0, result = 0;
  if (!negates && left.text() != nullptr && sign != '-')  // repetition and formatting
    return run_.fail(expression.position, ErrorCode::kUnsupported,
                     fmt::format("text {} a value", expression.operators[0]));
  if (!left.as_integer(a)) return fail_on_type(run_, expression.position, left, "be reckoned with");
  if (!right.as_integer(b)) return fail_on_type(run_, expression.position, right, "be reckoned with");
  if ((sign == '/' || sign == '%') && b == 0)
    return run_.fail(expression.position, ErrorCode::kInvalidArgument, "division by zero");
  bool overflows = false;
  if (sign == '-') {
    overflows = __builtin_sub_overflow(a, b, &result);
  } else if (sign == '*' || b == -1) {  // a // -1 is a * -1, and a % -1 is 0
    overflows = __builtin_mul_overflow(a, b, &result);
    if (sign == '%') overflows = false, result = 0;
  } else {  // Python rounds down, C++ to zero
    const int64_t rest = floor_modulo(a, b);
    result = sign == '%' ? rest : (a / b) - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
  }
  if (overflows) return run_.fail(expression.position, ErrorCode::kUnsupported, "an integer of more than 64 bits");
  return {result};
}

TemplateValue TemplateEvaluator::add(TemplatePosition position, const TemplateValue& left, const TemplateValue& right) {
  int64_t a = 0, b = 0, sum = 0;
  if (left.text() != nullptr && right.text() != nullptr)
    return run_.keep(position, std::string(*left.text()).append(*right.text()));
  if (left.list() != nullptr && right.list() != nullptr) {
    TemplateList both = *left.list();
    both.insert(both.end(), right.list()->begin(), right.list()->end());
    return run_.keep(position, std::move(both));
  }
  if (left.as_integer(a) && right.as_integer(b)) {
    if (__builtin_add_overflow(a, b, &sum))
      return run_.fail(position, ErrorCode::kUnsupported, "an integer of more than 64 bits");
    return {sum};
  }
  if (left.is_undefined()) return fail_on_type(run_, position, left, "be added to");
  return fail_on_type(run_, position, right, fmt::format("be added to a value of type {}", left.type_name()));
}

TemplateValue TemplateEvaluator::evaluate_concatenation(const Expression& expression) {
  std::string text;
  for (const TemplateExpressionPtr& operand : expression.operands) {
    text += run_.to_text(expression.position, evaluate(*operand));
    if (run_.failed() || text.size() > kTemplateMemoryMax) break;  // keep() says why
  }
  return run_.keep(expression.position, std::move(text));
}

TemplateValue TemplateEvaluator::evaluate_list(const Expression& expression) {
  TemplateList items;
  for (const TemplateExpressionPtr& operand : expression.operands) items.push_back(evaluate(*operand));
  return run_.keep(expression.position, std::move(items));
}

TemplateValue TemplateEvaluator::evaluate_namespace(const Expression& expression) {
  TemplateNamespace space;
  for (size_t place = 0; place < expression.operands.size(); ++place)
    space.attributes.emplace_back(expression.operators[place], evaluate(*expression.operands[place]));
  return run_.keep(expression.position, std::move(space));
}

TemplateValue TemplateEvaluator::evaluate_attribute(const Expression& expression) {
  return template_attribute(run_, expression.position, evaluate(*expression.operands[0]), expression.text);
}

TemplateValue TemplateEvaluator::evaluate_item(const Expression& expression) {
  const TemplateValue value = evaluate(*expression.operands[0]), key = evaluate(*expression.operands[1]);
  int64_t index = 0;
  if (key.text() != nullptr) return template_attribute(run_, expression.position, value, *key.text());
  if ((value.list() != nullptr || value.text() != nullptr) && key.as_integer(index)) {
    const TemplateList* const items = template_items(run_, expression.position, value);
    if (items == nullptr) return {};
    const auto count = static_cast<int64_t>(items->size());
    if (index >= -count && index < count) return (*items)[static_cast<size_t>(index < 0 ? index + count : index)];
  }
  return missing_attribute(run_, expression.position, value, "this item");
}

TemplateValue TemplateEvaluator::evaluate_slice(const Expression& expression) {
  const TemplateValue value = evaluate(*expression.operands[0]);
  std::optional<int64_t> bounds[3];
  for (size_t place = 0; place < 3; ++place) {
    if (expression.operands[place + 1] == nullptr) continue;
    const TemplateValue bound = evaluate(*expression.operands[place + 1]);
    if (bound.is_none()) continue;
    if (!bound.as_integer(bounds[place].emplace()))
      return fail_on_type(run_, expression.position, bound, "bound a slice");
  }
  if (run_.failed()) return {};
  if (value.text() == nullptr && value.list() == nullptr)
    return fail_on_type(run_, expression.position, value, "be sliced");
  if (bounds[2] == 0) return run_.fail(expression.position, ErrorCode::kInvalidArgument, "a slice of step 0");
  const TemplateList* const items = template_items(run_, expression.position, value);
  if (items == nullptr || !run_.spend_items(expression.position, items->size())) return {};
  TemplateList chosen;
  std::string text;
  for (const size_t index : python_slice(items->size(), bounds[0], bounds[1], bounds[2].value_or(1))) {
    if (value.text() != nullptr) {
      text += *(*items)[index].text();
    } else {
      chosen.push_back((*items)[index]);
    }
  }
  return value.text() != nullptr ? run_.keep(expression.position, std::move(text))
                                 : run_.keep(expression.position, std::move(chosen));
}

TemplateValue TemplateEvaluator::evaluate_call(const Expression& expression) {
  std::vector<TemplateValue> values;
  values.reserve(expression.operands.size());  // pointers into it are taken below
  std::vector<const TemplateValue*> arguments;
  for (const TemplateExpressionPtr& operand : expression.operands) {
    values.push_back(operand == nullptr ? TemplateValue{} : evaluate(*operand));
    arguments.push_back(operand == nullptr ? nullptr : &values.back());
  }
  if (run_.failed()) return {};
  const bool fits = expression.builtin->of_dict ? values[0].dict() != nullptr : values[0].text() != nullptr;
  if (expression.kind == Expression::Kind::kMethod && !fits)
    return fail_on_type(run_, expression.position, values[0], fmt::format("do {}()", expression.builtin->name));
  return expression.builtin->call({run_, expression.position, values[0], std::span(arguments).subspan(1)});
}

}  // namespace spillway
