#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace spillway {

struct ChatMessage {
  std::string role, content;
};

// A parsed chat template: a bounded subset of Jinja2 (trim_blocks and lstrip_blocks on, as transformers renders), of
// which every result is jinja2's. Bounded in source, nesting, steps, memory and output (template_lexer.h,
// template_syntax.h, template_run.h). Immutable; any thread may render.
//
// Statements: if, for (with condition and else, one or more names), set (of a namespace's attribute, too). Expressions:
// texts, integers, booleans, none, lists, variables, a.b, a[b], slices, + - * // % ~, comparisons, in, and, or, not,
// inline if. Filters: trim, upper, lower, length, count, default, d, join, first, last, string, list, items, select,
// reject, selectattr, rejectattr, tojson. Tests: defined, undefined, none, string, boolean, true, false, integer,
// number, mapping, sequence, iterable, odd, even, divisibleby, eq, equalto, ne, in. Methods: of texts strip, lstrip,
// rstrip, upper, lower, split, startswith, endswith, of dictionaries items. Functions: namespace, raise_exception,
// strftime_now. upper and lower are for ASCII.
class ChatTemplate {
 public:
  // An unsupported construct is kUnsupported naming it with line and column, broken syntax kInvalidArgument.
  static Result<ChatTemplate> parse(std::string_view source);
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();
  struct Inputs {
    std::vector<ChatMessage> messages;
    bool add_generation_prompt = true;
    std::string bos_token = {}, eos_token = {};
    std::optional<std::tm> now = {};  // local time, for strftime_now(); absent: there is no such function
  };
  // Sees messages, add_generation_prompt, bos_token, eos_token, strftime_now, and tools and documents as none.
  // raise_exception() in the template is kInvalidArgument with its text alone; so are, with their place, an operation
  // on a wrong type, a limit exceeded, and messages that are not UTF-8.
  Result<std::string> render(const Inputs& inputs) const;
  static std::tm local_time();  // for Inputs::now

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<Program> program);
  std::unique_ptr<Program> program_;
};

}  // namespace spillway
