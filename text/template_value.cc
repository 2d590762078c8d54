#include "text/template_value.h"

#include <algorithm>
#include <span>

namespace spillway {
namespace {

template <class... Visitors>
struct Overloaded : Visitors... {
  using Visitors::operator()...;
};
template <class... Visitors>
Overloaded(Visitors...) -> Overloaded<Visitors...>;

// dir() of Python 3.11's types, less what begins with an underscore.
constexpr std::string_view kTextAttributes[] = {
    "capitalize",   "casefold",   "center",    "count",       "encode",    "endswith",     "expandtabs",   "find",
    "format",       "format_map", "index",     "isalnum",     "isalpha",   "isascii",      "isdecimal",    "isdigit",
    "isidentifier", "islower",    "isnumeric", "isprintable", "isspace",   "istitle",      "isupper",      "join",
    "ljust",        "lower",      "lstrip",    "maketrans",   "partition", "removeprefix", "removesuffix", "replace",
    "rfind",        "rindex",     "rjust",     "rpartition",  "rsplit",    "rstrip",       "split",        "splitlines",
    "startswith",   "strip",      "swapcase",  "title",       "translate", "upper",        "zfill"};
constexpr std::string_view kListAttributes[] = {"append", "clear", "copy",   "count",   "extend", "index",
                                                "insert", "pop",   "remove", "reverse", "sort"};
constexpr std::string_view kDictAttributes[] = {"clear", "copy",    "fromkeys",   "get",    "items", "keys",
                                                "pop",   "popitem", "setdefault", "update", "values"};
constexpr std::string_view kIntegerAttributes[] = {
    "as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator",
    "from_bytes",       "imag",      "numerator",  "real",      "to_bytes"};

}  // namespace

const TemplateList* TemplateValue::list() const {
  const auto* const held = std::get_if<const TemplateList*>(&data);
  return held == nullptr ? nullptr : *held;
}

const TemplateDict* TemplateValue::dict() const {
  const auto* const held = std::get_if<const TemplateDict*>(&data);
  return held == nullptr ? nullptr : *held;
}

TemplateNamespace* TemplateValue::space() const {
  const auto* const held = std::get_if<TemplateNamespace*>(&data);
  return held == nullptr ? nullptr : *held;
}

bool TemplateValue::as_integer(int64_t& integer) const {
  if (const auto* const number = std::get_if<int64_t>(&data)) {
    integer = *number;
    return true;
  }
  if (const bool* const flag = boolean()) {
    integer = *flag ? 1 : 0;
    return true;
  }
  return false;
}

bool TemplateValue::is_true() const {
  return std::visit(Overloaded{[](TemplateUndefined) { return false; }, [](TemplateNone) { return false; },
                               [](bool flag) { return flag; }, [](int64_t number) { return number != 0; },
                               [](std::string_view text) { return !text.empty(); },
                               [](const TemplateList* list) { return !list->empty(); },
                               [](const TemplateDict* dict) { return !dict->empty(); },
                               [](TemplateFunction) { return true; }, [](TemplateNamespace*) { return true; }},
                    data);
}

std::string_view TemplateValue::type_name() const {
  return std::visit(
      Overloaded{[](TemplateUndefined) { return "Undefined"; }, [](TemplateNone) { return "NoneType"; },
                 [](bool) { return "bool"; }, [](int64_t) { return "int"; }, [](std::string_view) { return "str"; },
                 [](const TemplateList*) { return "list"; }, [](const TemplateDict*) { return "dict"; },
                 [](TemplateFunction) { return "function"; }, [](TemplateNamespace*) { return "Namespace"; }},
      data);
}

bool is_python_attribute(const TemplateValue& value, std::string_view name) {
  using Names = std::span<const std::string_view>;
  const Names names = std::visit(
      Overloaded{[](TemplateUndefined) { return Names(); }, [](TemplateNone) { return Names(); },
                 [](bool) { return Names(kIntegerAttributes); }, [](int64_t) { return Names(kIntegerAttributes); },
                 [](std::string_view) { return Names(kTextAttributes); },
                 [](const TemplateList*) { return Names(kListAttributes); },
                 [](const TemplateDict*) { return Names(kDictAttributes); }, [](TemplateFunction) { return Names(); },
                 [](TemplateNamespace*) { return Names(); }},
      value.data);
  return std::ranges::count(names, name) > 0;
}

const TemplateValue* find_key(const TemplateDict& dict, std::string_view key) {
  for (const auto& [name, value] : dict)
    if (name == key) return &value;
  return nullptr;
}

}  // namespace spillway
