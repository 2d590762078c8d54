#include "text/template_builtins.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>

#include "text/python_string.h"
#include "text/template_json.h"
#include "text/template_sequences.h"

namespace spillway {
namespace {

using Names = std::string_view[];

TemplateValue of_flag(bool flag) { return {flag}; }
TemplateValue of_size(size_t size) { return {static_cast<int64_t>(size)}; }

std::string_view value_text(const TemplateCall& call) { return call.run.to_text(call.position, call.value); }

// Upper and lower case need the tables of Unicode beyond ASCII; refusing beats a text that differs from jinja2's.
TemplateValue change_case(const TemplateCall& call, std::string_view text, std::string_view name, char first,
                          char last) {
  constexpr char kCaseBit = 0x20;
  std::string changed(text);
  for (char& byte : changed) {
    if (static_cast<uint8_t>(byte) >= 0x80)
      return call.run.fail(call.position, ErrorCode::kUnsupported, fmt::format("{} of text beyond ASCII", name));
    if (byte >= first && byte <= last) byte = static_cast<char>(byte ^ kCaseBit);
  }
  return call.run.keep(call.position, std::move(changed));
}

// `text` without the characters of argument 0 at its sides, without white space when there is no such argument.
TemplateValue strip(const TemplateCall& call, std::string_view text, StripSides sides) {
  const TemplateValue* const characters = call.arguments[0];
  if (characters == nullptr || characters->is_none()) {
    if (!call.run.spend_scan(call.position, text.size(), 1)) return {};
    return {python_strip(text, sides)};
  }
  if (characters->text() == nullptr)
    return fail_on_type(call.run, call.position, *characters, "be characters to strip");
  if (!call.run.spend_scan(call.position, text.size(), characters->text()->size())) return {};
  return {python_strip(text, sides, *characters->text())};
}

TemplateValue length(const TemplateCall& call) {
  if (const std::string_view* const text = call.value.text())
    return call.run.spend_scan(call.position, text->size(), 1) ? of_size(python_length(*text)) : TemplateValue{};
  if (const TemplateDict* const dict = call.value.dict()) return of_size(dict->size());
  const TemplateList* const items = template_items(call.run, call.position, call.value);
  return items == nullptr ? TemplateValue{} : of_size(items->size());
}

TemplateValue default_to(const TemplateCall& call) {
  const TemplateValue *const fallback = call.arguments[0], *const also_false = call.arguments[1];
  const bool replaces =
      call.value.is_undefined() || (also_false != nullptr && also_false->is_true() && !call.value.is_true());
  if (!replaces) return call.value;
  return fallback == nullptr ? TemplateValue{std::string_view()} : *fallback;
}

TemplateValue join(const TemplateCall& call) {
  const TemplateList* const items = template_items(call.run, call.position, call.value);
  if (items == nullptr) return {};
  const std::string_view between =
      call.arguments[0] == nullptr ? std::string_view() : call.run.to_text(call.position, *call.arguments[0]);
  std::string joined;
  for (size_t index = 0; index < items->size(); ++index) {
    if (index > 0) joined += between;
    joined += call.run.to_text(call.position, (*items)[index]);
    // Few items may be long texts many times over: what grows is counted while it grows.
    if (!call.run.spend(call.position, 1) || joined.size() > kTemplateMemoryMax) break;
  }
  return call.run.keep(call.position, std::move(joined));
}

TemplateValue end_item(const TemplateCall& call, bool first) {
  const TemplateList* const items = template_items(call.run, call.position, call.value);
  if (items == nullptr || items->empty()) return {TemplateUndefined{"an item of something empty"}};
  return first ? items->front() : items->back();
}

constexpr Names kCharacters = {"chars"};
constexpr Names kDefault = {"default_value", "boolean"};
constexpr Names kJoin = {"d"};
constexpr Names kSelect = {"", ""}, kSelectAttribute = {"", "", ""}, kToJson = {"ensure_ascii", "indent"};
constexpr TemplateBuiltin kFilters[] = {
    {"trim", kCharacters, 0, [](const TemplateCall& call) { return strip(call, value_text(call), StripSides::kBoth); }},
    {"upper", {}, 0, [](const TemplateCall& call) { return change_case(call, value_text(call), "upper", 'a', 'z'); }},
    {"lower", {}, 0, [](const TemplateCall& call) { return change_case(call, value_text(call), "lower", 'A', 'Z'); }},
    {"length", {}, 0, length},
    {"count", {}, 0, length},
    {"default", kDefault, 0, default_to},
    {"d", kDefault, 0, default_to},
    {"join", kJoin, 0, join},
    {"first", {}, 0, [](const TemplateCall& call) { return end_item(call, true); }},
    {"last", {}, 0, [](const TemplateCall& call) { return end_item(call, false); }},
    {"string", {}, 0, [](const TemplateCall& call) { return TemplateValue{value_text(call)}; }},
    {"list", {}, 0, template_list},
    {"items", {}, 0, template_pairs},
    {"select", kSelect, 0, [](const TemplateCall& call) { return select_items(call, SelectBy::kItem, true); }},
    {"reject", kSelect, 0, [](const TemplateCall& call) { return select_items(call, SelectBy::kItem, false); }},
    {"selectattr", kSelectAttribute, 1,
     [](const TemplateCall& call) { return select_items(call, SelectBy::kAttribute, true); }},
    {"rejectattr", kSelectAttribute, 1,
     [](const TemplateCall& call) { return select_items(call, SelectBy::kAttribute, false); }},
    {"tojson", kToJson, 0, template_to_json},
};

// The value modulo an integer, with Python's sign; nothing after a failure.
std::optional<int64_t> modulo(const TemplateCall& call, const TemplateValue& divisor) {
  int64_t number = 0, by = 0;
  if (!call.value.as_integer(number)) {
    fail_on_type(call.run, call.position, call.value, "be divided");
  } else if (!divisor.as_integer(by) || by == 0) {
    fail_on_type(call.run, call.position, divisor, "be a divisor");
  } else {
    return floor_modulo(number, by);
  }
  return std::nullopt;
}

TemplateValue is_equal(const TemplateCall& call) {
  return of_flag(call.run.equal(call.position, call.value, *call.arguments[0]));
}

TemplateValue is_iterable(const TemplateCall& call) {
  return of_flag(call.value.is_undefined() || call.value.text() != nullptr || call.value.list() != nullptr ||
                 call.value.dict() != nullptr);
}

constexpr Names kOne = {""};
constexpr TemplateBuiltin kTests[] = {
    {"defined", {}, 0, [](const TemplateCall& call) { return of_flag(!call.value.is_undefined()); }},
    {"undefined", {}, 0, [](const TemplateCall& call) { return of_flag(call.value.is_undefined()); }},
    {"none", {}, 0, [](const TemplateCall& call) { return of_flag(call.value.is_none()); }},
    {"string", {}, 0, [](const TemplateCall& call) { return of_flag(call.value.text() != nullptr); }},
    {"boolean", {}, 0, [](const TemplateCall& call) { return of_flag(call.value.boolean() != nullptr); }},
    {"true", {}, 0, [](const TemplateCall& call) { return of_flag(call.value.boolean() && *call.value.boolean()); }},
    {"false", {}, 0, [](const TemplateCall& call) { return of_flag(call.value.boolean() && !*call.value.boolean()); }},
    {"mapping", {}, 0, [](const TemplateCall& call) { return of_flag(call.value.dict() != nullptr); }},
    {"integer",
     {},
     0,
     [](const TemplateCall& call) { return of_flag(std::holds_alternative<int64_t>(call.value.data)); }},
    {"number",
     {},
     0,
     [](const TemplateCall& call) {
       int64_t number = 0;
       return of_flag(call.value.as_integer(number));
     }},
    // jinja2 asks for len() or iter(), which its undefined has.
    {"sequence", {}, 0, is_iterable},
    {"iterable", {}, 0, is_iterable},
    {"odd", {}, 0, [](const TemplateCall& call) { return of_flag(modulo(call, {int64_t{2}}) == 1); }},
    {"even", {}, 0, [](const TemplateCall& call) { return of_flag(modulo(call, {int64_t{2}}) == 0); }},
    {"divisibleby", kOne, 1, [](const TemplateCall& call) { return of_flag(modulo(call, *call.arguments[0]) == 0); }},
    {"eq", kOne, 1, is_equal},
    {"equalto", kOne, 1, is_equal},
    {"ne", kOne, 1,
     [](const TemplateCall& call) { return of_flag(!call.run.equal(call.position, call.value, *call.arguments[0])); }},
    {"in", kOne, 1,
     [](const TemplateCall& call) {
       return of_flag(template_contains(call.run, call.position, *call.arguments[0], call.value));
     }},
};

TemplateValue split(const TemplateCall& call) {
  const TemplateValue *const separator = call.arguments[0], *const maximum = call.arguments[1];
  int64_t splits_max = -1;
  if (maximum != nullptr && !maximum->as_integer(splits_max))
    return fail_on_type(call.run, call.position, *maximum, "be a number of splits");
  std::optional<std::string_view> at;
  if (separator != nullptr && !separator->is_none()) {
    if (separator->text() == nullptr || separator->text()->empty())
      return fail_on_type(call.run, call.position, *separator, "be a separator");
    at = *separator->text();
  }
  if (!call.run.spend_scan(call.position, call.value.text()->size(), at ? at->size() : 1) ||
      !call.run.spend_items(call.position, call.value.text()->size()))
    return {};
  TemplateList pieces;
  for (const std::string_view piece : python_split(*call.value.text(), at, splits_max)) pieces.push_back({piece});
  return call.run.keep(call.position, std::move(pieces));
}

TemplateValue has_affix(const TemplateCall& call, bool at_start) {
  const TemplateValue& affix = *call.arguments[0];
  if (affix.text() == nullptr) return fail_on_type(call.run, call.position, affix, "be the start or end of text");
  if (!call.run.spend_scan(call.position, affix.text()->size(), 1)) return {};
  return of_flag(at_start ? call.value.text()->starts_with(*affix.text())
                          : call.value.text()->ends_with(*affix.text()));
}

constexpr Names kSplit = {"sep", "maxsplit"};
// The evaluator calls these on what they are of only.
constexpr TemplateBuiltin kMethods[] = {
    {"strip", kOne, 0, [](const TemplateCall& call) { return strip(call, *call.value.text(), StripSides::kBoth); }},
    {"lstrip", kOne, 0, [](const TemplateCall& call) { return strip(call, *call.value.text(), StripSides::kLeft); }},
    {"rstrip", kOne, 0, [](const TemplateCall& call) { return strip(call, *call.value.text(), StripSides::kRight); }},
    {"upper", {}, 0, [](const TemplateCall& call) { return change_case(call, *call.value.text(), "upper", 'a', 'z'); }},
    {"lower", {}, 0, [](const TemplateCall& call) { return change_case(call, *call.value.text(), "lower", 'A', 'Z'); }},
    {"split", kSplit, 0, split},
    {"startswith", kOne, 1, [](const TemplateCall& call) { return has_affix(call, true); }},
    {"endswith", kOne, 1, [](const TemplateCall& call) { return has_affix(call, false); }},
    {"items", {}, 0, template_pairs, true},
};

// transformers' function: the local time, in C's names of days and months.
TemplateValue strftime_now(const TemplateCall& call) {
  constexpr std::string_view kDirectives = "aAbBdHIjmMpSyY%";
  if (call.run.now() == nullptr)
    return call.run.fail(call.position, ErrorCode::kInvalidArgument, "\"strftime_now\" is undefined");
  const std::string_view* const format = call.arguments[0]->text();
  if (format == nullptr) return fail_on_type(call.run, call.position, *call.arguments[0], "be a format of time");
  std::string text;
  for (size_t at = 0; at < format->size(); ++at) {
    if ((*format)[at] != '%') {
      text += (*format)[at];
      continue;
    }
    const char directive = ++at < format->size() ? (*format)[at] : '\0';
    if (kDirectives.find(directive) == std::string_view::npos)
      return call.run.fail(call.position, ErrorCode::kUnsupported, "this format of strftime_now()");
    const char pattern[] = {'%', directive, '\0'};
    char part[32];
    text.append(part, std::strftime(part, sizeof part, pattern, call.run.now()));
  }
  return call.run.keep(call.position, std::move(text));
}
constexpr TemplateBuiltin kFunctions[] = {{"strftime_now", kOne, 1, strftime_now}};

const TemplateBuiltin* find_builtin(std::span<const TemplateBuiltin> builtins, std::string_view name) {
  const auto found = std::ranges::find(builtins, name, &TemplateBuiltin::name);
  return found == builtins.end() ? nullptr : &*found;
}

}  // namespace

const TemplateBuiltin* find_template_filter(std::string_view name) { return find_builtin(kFilters, name); }
const TemplateBuiltin* find_template_test(std::string_view name) { return find_builtin(kTests, name); }
const TemplateBuiltin* find_template_method(std::string_view name) { return find_builtin(kMethods, name); }
const TemplateBuiltin* find_template_function(std::string_view name) { return find_builtin(kFunctions, name); }

bool template_contains(TemplateRun& run, TemplatePosition position, const TemplateValue& container,
                       const TemplateValue& item) {
  if (const std::string_view* const text = container.text()) {
    if (item.text() != nullptr)
      return run.spend_scan(position, text->size(), item.text()->size()) &&
             text->find(*item.text()) != std::string_view::npos;
    fail_on_type(run, position, item, "be part of a text");
    return false;
  }
  if (const TemplateDict* const dict = container.dict())
    return item.text() != nullptr && find_key(*dict, *item.text()) != nullptr;
  const TemplateList* const items = template_items(run, position, container);
  return items != nullptr &&
         std::ranges::any_of(*items, [&](const TemplateValue& other) { return run.equal(position, other, item); });
}

const TemplateList* template_items(TemplateRun& run, TemplatePosition position, const TemplateValue& value) {
  if (value.list() != nullptr) return value.list();
  TemplateList items;
  if (const std::string_view* const text = value.text()) {
    if (!run.spend_items(position, text->size())) return nullptr;
    for (const std::string_view character : python_characters(*text)) items.push_back({character});
  } else if (const TemplateDict* const dict = value.dict()) {
    for (const auto& [key, unused] : *dict) items.push_back({key});
  } else if (!value.is_undefined()) {
    fail_on_type(run, position, value, "be iterated over");
    return nullptr;
  }
  return run.keep(position, std::move(items)).list();
}

TemplateValue template_attribute(TemplateRun& run, TemplatePosition position, const TemplateValue& value,
                                 std::string_view name) {
  const TemplateDict* const entries = value.space() != nullptr ? &value.space()->attributes : value.dict();
  if (entries != nullptr && run.spend(position, entries->size() / 16))
    if (const TemplateValue* const found = find_key(*entries, name)) return *found;
  return missing_attribute(run, position, value, name);
}

TemplateValue missing_attribute(TemplateRun& run, TemplatePosition position, const TemplateValue& value,
                                std::string_view name) {
  if (value.is_undefined()) return fail_on_type(run, position, value, fmt::format("have {:?}", name));
  if (is_python_attribute(value, name))
    return run.fail(position, ErrorCode::kUnsupported,
                    fmt::format("the attribute {:?} of a {}", name, value.type_name()));
  return {TemplateUndefined{name}};
}

TemplateValue fail_on_type(TemplateRun& run, TemplatePosition position, const TemplateValue& value,
                           std::string_view what) {
  const auto* const undefined = std::get_if<TemplateUndefined>(&value.data);
  return run.fail(position, ErrorCode::kInvalidArgument,
                  undefined != nullptr ? fmt::format("{} is undefined and cannot {}", undefined->name, what)
                                       : fmt::format("a value of type {} cannot {}", value.type_name(), what));
}

}  // namespace spillway
