#include "text/template_sequences.h"

#include <fmt/format.h>

#include <algorithm>

namespace spillway {
namespace {

// Null after a failure, and where there is none.
const TemplateBuiltin* test_of(const TemplateCall& call, const TemplateValue* name, bool has_argument) {
  if (name == nullptr) return nullptr;
  const TemplateBuiltin* const test = name->text() == nullptr ? nullptr : find_template_test(*name->text());
  if (test == nullptr) {
    call.run.fail(call.position, ErrorCode::kUnsupported,
                  fmt::format("the test {:?}", name->text() == nullptr ? name->type_name() : *name->text()));
  } else if (has_argument ? test->arguments.empty() : test->arguments_min > 0) {
    call.run.fail(call.position, ErrorCode::kInvalidArgument,
                  fmt::format("the test \"{}\" with {} argument", test->name, has_argument ? "an" : "no"));
    return nullptr;
  }
  return test;
}

}  // namespace

TemplateValue template_list(const TemplateCall& call) {
  const TemplateList* const items = template_items(call.run, call.position, call.value);
  if (items == nullptr) return {};
  return call.run.keep(call.position, TemplateList(*items));
}

TemplateValue template_pairs(const TemplateCall& call) {
  if (call.value.is_undefined()) return call.run.keep(call.position, TemplateList());
  const TemplateDict* const dict = call.value.dict();
  if (dict == nullptr) return fail_on_type(call.run, call.position, call.value, "have items");
  TemplateList pairs;
  for (const auto& [key, value] : *dict) {
    if (!call.run.spend(call.position, 1)) return {};
    pairs.push_back(call.run.keep(call.position, TemplateList{{key}, value}));
  }
  return call.run.keep(call.position, std::move(pairs));
}

TemplateValue select_items(const TemplateCall& call, SelectBy by, bool passing) {
  std::span<const TemplateValue* const> arguments = call.arguments;
  std::string_view attribute;
  if (by == SelectBy::kAttribute) {
    if (arguments[0]->text() == nullptr)
      return fail_on_type(call.run, call.position, *arguments[0], "be the name of an attribute");
    attribute = *arguments[0]->text();
    const bool is_place = std::ranges::all_of(attribute, [](char c) { return c >= '0' && c <= '9'; });
    if (is_place || attribute.find('.') != std::string_view::npos)
      return call.run.fail(call.position, ErrorCode::kUnsupported, fmt::format("the attribute {:?}", attribute));
    arguments = arguments.subspan(1);
  }
  const TemplateBuiltin* const test = test_of(call, arguments[0], arguments[1] != nullptr);
  const TemplateList* const items = template_items(call.run, call.position, call.value);
  if (items == nullptr) return {};
  TemplateList chosen;
  for (const TemplateValue& item : *items) {
    if (!call.run.spend(call.position, 1)) return {};
    const TemplateValue subject =
        by == SelectBy::kItem ? item : template_attribute(call.run, call.position, item, attribute);
    const bool passes = test == nullptr
                            ? subject.is_true()
                            : test->call({call.run, call.position, subject, arguments.subspan(1)}).is_true();
    if (passes == passing) chosen.push_back(item);
  }
  return call.run.keep(call.position, std::move(chosen));
}

}  // namespace spillway
