#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/template_run.h"
#include "text/template_syntax.h"

namespace spillway {

// Executes a parsed template once. Results are jinja2's with its default undefined: looking up what is not there gives
// undefined, which prints as nothing and fails in arithmetic and attributes. Borrows the run and the tree. One thread.
class TemplateEvaluator {
 public:
  // `globals`: the variables that the template finds.
  TemplateEvaluator(TemplateRun& run, TemplateDict globals) : run_(run), scopes_{std::move(globals)} {}
  // Appends to the output. After it `run` says whether all went well.
  void execute(const TemplateStatement::Body& body);
  std::string take_output() { return std::move(output_); }

 private:
  using Expression = TemplateExpression;
  void execute(const TemplateStatement& statement);
  void execute_if(const TemplateStatement& statement);
  void execute_for(const TemplateStatement& statement);
  TemplateList filtered(const TemplateStatement& loop, const TemplateList& items);
  TemplateDict loop_state(const TemplateList& items, size_t index) const;
  void write(TemplatePosition position, std::string_view text);
  void assign(std::string_view name, TemplateValue value);
  void set_attribute(const TemplateStatement& statement);
  // What a pass of a loop begins with: the item under the loop's names, and `loop`.
  TemplateDict loop_scope(const TemplateStatement& statement, const TemplateValue& item, const TemplateValue& loop);
  TemplateValue look_up(TemplatePosition position, std::string_view name);

  TemplateValue evaluate(const Expression& expression);
  TemplateValue evaluate_logic(const Expression& expression);
  TemplateValue evaluate_compare(const Expression& expression);
  bool compare(TemplatePosition position, std::string_view comparison, const TemplateValue& left,
               const TemplateValue& right);
  TemplateValue evaluate_arithmetic(const Expression& expression);
  TemplateValue add(TemplatePosition position, const TemplateValue& left, const TemplateValue& right);
  TemplateValue evaluate_concatenation(const Expression& expression);
  TemplateValue evaluate_list(const Expression& expression);
  TemplateValue evaluate_namespace(const Expression& expression);
  TemplateValue evaluate_attribute(const Expression& expression);
  TemplateValue evaluate_item(const Expression& expression);
  TemplateValue evaluate_slice(const Expression& expression);
  TemplateValue evaluate_call(const Expression& expression);

  TemplateRun& run_;
  std::vector<TemplateDict> scopes_;  // the last is the innermost
  std::string output_;
};

}  // namespace spillway
