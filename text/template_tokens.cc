#include "text/template_tokens.h"

#include <fmt/format.h>

#include <string>

namespace spillway {
namespace {

std::string describe(const TemplateToken& token) {
  switch (token.kind) {
    case TemplateTokenKind::kText: return "text";
    case TemplateTokenKind::kVariableBegin: return "\"{{\"";
    case TemplateTokenKind::kVariableEnd: return "\"}}\"";
    case TemplateTokenKind::kBlockBegin: return "\"{%\"";
    case TemplateTokenKind::kBlockEnd: return "\"%}\"";
    case TemplateTokenKind::kName:
    case TemplateTokenKind::kOperator: return fmt::format("\"{}\"", token.text);
    case TemplateTokenKind::kString: return "a string";
    case TemplateTokenKind::kInteger: return fmt::format("{}", token.number);
    case TemplateTokenKind::kEnd: return "the end of the template";
  }
  return {};
}

}  // namespace

bool TemplateTokens::take_operator(std::string_view text) {
  const bool there = at_operator(text);
  if (there) take();
  return there;
}

bool TemplateTokens::take_name(std::string_view text) {
  const bool there = at_name(text);
  if (there) take();
  return there;
}

void TemplateTokens::expect_operator(std::string_view text) {
  if (!take_operator(text)) fail_syntax(fmt::format("\"{}\"", text));
}

void TemplateTokens::expect(TemplateTokenKind kind) {
  if (!at(kind)) return fail_syntax(describe({.kind = kind, .text = {}, .number = 0, .position = {}}));
  take();
}

void TemplateTokens::fail_syntax(std::string_view expected) {
  fail(ErrorCode::kInvalidArgument, current().position,
       fmt::format("{} is expected, not {}", expected, describe(current())));
}

void TemplateTokens::fail(ErrorCode code, TemplatePosition position, std::string_view what) {
  if (!failed()) error_ = template_error(code, position, what);
}

}  // namespace spillway
