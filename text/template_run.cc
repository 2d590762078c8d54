#include "text/template_run.h"

#include <fmt/format.h>

#include <utility>

namespace spillway {

bool TemplateRun::spend(TemplatePosition position, uint64_t steps) {
  if (!failed() && steps > steps_left_)
    fail(position, ErrorCode::kInvalidArgument, fmt::format("rendering takes more than {} steps", kTemplateStepsMax));
  if (failed()) return false;
  steps_left_ -= steps;
  return true;
}

bool TemplateRun::take_memory(TemplatePosition position, uint64_t bytes) {
  if (!failed() && bytes > memory_left_)
    fail(position, ErrorCode::kInvalidArgument,
         fmt::format("rendering makes values of more than {} bytes", kTemplateMemoryMax));
  if (failed()) return false;
  memory_left_ -= bytes;
  return true;
}

TemplateValue TemplateRun::keep(TemplatePosition position, std::string text) {
  if (!take_memory(position, sizeof text + text.size())) return {};
  return {std::string_view(texts_.emplace_back(std::move(text)))};
}

TemplateValue TemplateRun::keep(TemplatePosition position, TemplateList list) {
  if (!take_memory(position, sizeof list + list.size() * sizeof(TemplateValue))) return {};
  return {&std::as_const(lists_.emplace_back(std::move(list)))};
}

TemplateValue TemplateRun::keep(TemplatePosition position, TemplateDict dict) {
  if (!take_memory(position, sizeof dict + dict.size() * sizeof(TemplateDict::value_type))) return {};
  return {&std::as_const(dicts_.emplace_back(std::move(dict)))};
}

TemplateValue TemplateRun::keep(TemplatePosition position, TemplateNamespace space) {
  if (!take_memory(position, sizeof space + space.attributes.size() * sizeof(TemplateDict::value_type))) return {};
  return {&spaces_.emplace_back(std::move(space))};
}

void TemplateRun::set(TemplatePosition position, TemplateNamespace& space, std::string_view name,
                      const TemplateValue& value) {
  if (!spend(position, 1 + space.attributes.size() / 16)) return;
  for (auto& [known, held] : space.attributes) {
    if (known != name) continue;
    held = value;
    return;
  }
  if (take_memory(position, sizeof(TemplateDict::value_type))) space.attributes.emplace_back(name, value);
}

TemplateValue TemplateRun::fail(TemplatePosition position, ErrorCode code, std::string_view what) {
  return fail(template_error(code, position, what));
}

TemplateValue TemplateRun::fail(Error error) {
  if (!failed()) error_ = std::move(error);
  return {};
}

std::string_view TemplateRun::to_text(TemplatePosition position, const TemplateValue& value) {
  if (value.is_undefined()) return "";
  if (value.is_none()) return "None";
  if (const bool* const flag = value.boolean()) return *flag ? "True" : "False";
  if (const std::string_view* const text = value.text()) return *text;
  if (const auto* const number = std::get_if<int64_t>(&value.data)) {
    const TemplateValue kept = keep(position, std::to_string(*number));
    return kept.text() == nullptr ? std::string_view() : *kept.text();
  }
  fail(position, ErrorCode::kUnsupported, fmt::format("a {} as text", value.type_name()));
  return "";
}

bool TemplateRun::check_depth(TemplatePosition position, uint32_t depth) {
  if (depth < kTemplateDepthMax) return !failed();
  fail(position, ErrorCode::kInvalidArgument, fmt::format("lists nested more than {} deep", kTemplateDepthMax));
  return false;
}

bool TemplateRun::equal(TemplatePosition position, const TemplateValue& left, const TemplateValue& right,
                        uint32_t depth) {
  if (!spend(position, 1) || !check_depth(position, depth)) return false;
  int64_t left_number = 0, right_number = 0;
  if (left.as_integer(left_number) && right.as_integer(right_number)) return left_number == right_number;
  if (left.data.index() != right.data.index()) return false;
  if (left.is_undefined() || left.is_none()) return true;
  if (left.text() != nullptr) return spend_scan(position, left.text()->size(), 1) && *left.text() == *right.text();
  if (const TemplateList* const items = left.list()) {
    const TemplateList& others = *right.list();
    bool same = items->size() == others.size();
    for (size_t index = 0; same && index < items->size(); ++index)
      same = equal(position, (*items)[index], others[index], depth + 1);
    return same;
  }
  if (left.dict() == nullptr) {  // functions and namespaces are only themselves
    const auto* const function = std::get_if<TemplateFunction>(&left.data);
    return function != nullptr ? function->name == std::get<TemplateFunction>(right.data).name
                               : left.space() == right.space();
  }
  const TemplateDict &entries = *left.dict(), &others = *right.dict();
  bool same = entries.size() == others.size();
  for (size_t index = 0; same && index < entries.size(); ++index) {
    const TemplateValue* const other = find_key(others, entries[index].first);
    same = other != nullptr && equal(position, entries[index].second, *other, depth + 1);
  }
  return same;
}

}  // namespace spillway
