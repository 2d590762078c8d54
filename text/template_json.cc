#include "text/template_json.h"

#include <fmt/format.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace spillway {
namespace {

constexpr int64_t kIndentMax = 16;

class JsonWriter {
 public:
  JsonWriter(const TemplateCall& call, std::optional<int64_t> indent) : call_(call), indent_(indent) {}
  void write(const TemplateValue& value, uint32_t depth);
  std::string take() { return std::move(out_); }

 private:
  void write_text(std::string_view text);
  // In front of an item, or of the closing bracket.
  void begin_item(bool first, uint32_t depth) {
    if (!first) out_ += indent_ ? "," : ", ";
    begin_line(depth);
  }
  void begin_line(uint32_t depth) {
    if (indent_) out_ += '\n' + std::string(static_cast<size_t>(*indent_) * depth, ' ');
  }
  bool may_go_on(uint32_t depth) {  // what grows is counted while it grows
    return call_.run.spend(call_.position, 1) && call_.run.check_depth(call_.position, depth) &&
           out_.size() <= kTemplateMemoryMax;
  }

  const TemplateCall& call_;
  const std::optional<int64_t> indent_;
  std::string out_;
};

void JsonWriter::write(const TemplateValue& value, uint32_t depth) {
  if (!may_go_on(depth)) return;
  if (const std::string_view* const text = value.text()) {
    write_text(*text);
  } else if (const TemplateList* const items = value.list()) {
    out_ += '[';
    for (size_t at = 0; at < items->size(); ++at) {
      begin_item(at == 0, depth + 1);
      write((*items)[at], depth + 1);
      if (call_.run.failed()) return;
    }
    if (!items->empty()) begin_line(depth);
    out_ += ']';
  } else if (const TemplateDict* const dict = value.dict()) {
    out_ += '{';
    for (size_t at = 0; at < dict->size(); ++at) {
      begin_item(at == 0, depth + 1);
      write_text((*dict)[at].first);
      out_ += ": ";
      write((*dict)[at].second, depth + 1);
      if (call_.run.failed()) return;
    }
    if (!dict->empty()) begin_line(depth);
    out_ += '}';
  } else if (const bool* const flag = value.boolean()) {
    out_ += *flag ? "true" : "false";
  } else if (int64_t number = 0; value.as_integer(number)) {
    out_ += std::to_string(number);
  } else if (value.is_none()) {
    out_ += "null";
  } else {
    fail_on_type(call_.run, call_.position, value, "be written as JSON");
  }
}

void JsonWriter::write_text(std::string_view text) {
  constexpr std::string_view kEscaped = "\"\\\b\f\n\r\t", kLetters = "\"\\bfnrt";
  if (!call_.run.spend_scan(call_.position, text.size(), 1)) return;
  out_ += '"';
  for (const char c : text) {
    if (const size_t known = kEscaped.find(c); known != std::string_view::npos) {
      out_ += {'\\', kLetters[known]};
    } else if (static_cast<uint8_t>(c) < 0x20) {
      out_ += fmt::format("\\u{:04x}", static_cast<uint8_t>(c));
    } else {
      out_ += c;
    }
  }
  out_ += '"';
}

}  // namespace

TemplateValue template_to_json(const TemplateCall& call) {
  const TemplateValue *const ascii = call.arguments[0], *const given = call.arguments[1];
  if (ascii != nullptr && ascii->is_true())
    return call.run.fail(call.position, ErrorCode::kUnsupported, "tojson with ensure_ascii");
  std::optional<int64_t> indent;
  if (given != nullptr && !given->is_none()) {
    if (!given->as_integer(indent.emplace()) || *indent < 0 || *indent > kIndentMax)
      return call.run.fail(call.position, ErrorCode::kUnsupported, "this indent of tojson");
  }
  JsonWriter writer(call, indent);
  writer.write(call.value, 0);
  return call.run.keep(call.position, writer.take());
}

}  // namespace spillway
