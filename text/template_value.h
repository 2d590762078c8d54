#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace spillway {

struct TemplateValue;
using TemplateList = std::vector<TemplateValue>;
using TemplateDict = std::vector<std::pair<std::string_view, TemplateValue>>;  // few keys, in order

struct TemplateUndefined {
  std::string_view name;  // what was looked for
};
struct TemplateNone {};
struct TemplateFunction {
  std::string_view name;  // of one that templates may call; it can only be asked whether it is there
};
struct TemplateNamespace;

// A value in a running template. Small and copied freely: texts, lists and dictionaries are borrowed from the template,
// the inputs or the TemplateRun, and never change; namespaces are the TemplateRun's and do.
struct TemplateValue {
  std::variant<TemplateUndefined, TemplateNone, bool, int64_t, std::string_view, const TemplateList*,
               const TemplateDict*, TemplateFunction, TemplateNamespace*>
      data;

  bool is_undefined() const { return std::holds_alternative<TemplateUndefined>(data); }
  bool is_none() const { return std::holds_alternative<TemplateNone>(data); }
  const bool* boolean() const { return std::get_if<bool>(&data); }
  const std::string_view* text() const { return std::get_if<std::string_view>(&data); }
  const TemplateList* list() const;  // null when it is another type, as dict()
  const TemplateDict* dict() const;
  TemplateNamespace* space() const;
  // An integer, or a boolean as 0 or 1, as in Python; false when it is neither.
  bool as_integer(int64_t& integer) const;

  bool is_true() const;                // Python's truth value
  std::string_view type_name() const;  // as Python calls it: "str", "NoneType", ...
};

// namespace(...): attributes that a template sets, whichever loop it is in.
struct TemplateNamespace {
  TemplateDict attributes;
};

// number mod by as Python has it: with the sign of `by`, never overflowing. REQUIRES: by != 0.
inline int64_t floor_modulo(int64_t number, int64_t by) {
  if (by == -1) return 0;  // the machine's own division would overflow at the lowest number
  const int64_t rest = number % by;
  return rest != 0 && (rest < 0) != (by < 0) ? rest + by : rest;
}

// Whether Python has an attribute of this name (a method, mostly) on values of this type.
bool is_python_attribute(const TemplateValue& value, std::string_view name);

// Null when there is no such key.
const TemplateValue* find_key(const TemplateDict& dict, std::string_view key);

}  // namespace spillway
