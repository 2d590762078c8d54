#pragma once

#include <span>
#include <string_view>

#include "text/template_run.h"
#include "text/template_value.h"

namespace spillway {

// One call of a builtin. Failures go into `run`; the result is then of no use.
struct TemplateCall {
  TemplateRun& run;
  TemplatePosition position;
  const TemplateValue& value;                       // what stands before `|`, `is` or `.`
  std::span<const TemplateValue* const> arguments;  // one for each that the builtin knows; null: not given
};

// A filter (`value | name(...)`), test (`value is name(...)`), method of a text or a dictionary (`value.name(...)`) or
// function (`name(...)`, its value none) of the template language, under jinja2's or Python's name and with its
// results.
struct TemplateBuiltin {
  std::string_view name;
  // In order, each by position or as a keyword of this name (an empty name: by position only).
  std::span<const std::string_view> arguments;
  size_t arguments_min = 0;  // as many must be given
  TemplateValue (*call)(const TemplateCall& call) = nullptr;
  bool of_dict = false;  // a method of dictionaries, not of texts
};

// Null when there is none of this name.
const TemplateBuiltin* find_template_filter(std::string_view name);
const TemplateBuiltin* find_template_test(std::string_view name);
const TemplateBuiltin* find_template_method(std::string_view name);
const TemplateBuiltin* find_template_function(std::string_view name);

// Python's `item in container`.
bool template_contains(TemplateRun& run, TemplatePosition position, const TemplateValue& container,
                       const TemplateValue& item);
// What a loop over `value` visits: items, characters, keys; nothing for undefined. Null after a failure.
const TemplateList* template_items(TemplateRun& run, TemplatePosition position, const TemplateValue& value);
// `value.name`: undefined where there is none; but not where Python would find one of its methods, and not of
// undefined itself. missing_attribute(): where it is known that there is none.
TemplateValue template_attribute(TemplateRun& run, TemplatePosition position, const TemplateValue& value,
                                 std::string_view name);
TemplateValue missing_attribute(TemplateRun& run, TemplatePosition position, const TemplateValue& value,
                                std::string_view name);
// Records that `value` cannot do `what`: by name when it is undefined, else by type.
TemplateValue fail_on_type(TemplateRun& run, TemplatePosition position, const TemplateValue& value,
                           std::string_view what);

}  // namespace spillway
