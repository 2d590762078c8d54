#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace spillway {

// Where something stands in a template's source; both count from 1, columns in bytes.
struct TemplatePosition {
  uint32_t line = 1, column = 1;
};
// `what` with its place in front, as every error about a template reads.
Error template_error(ErrorCode code, TemplatePosition position, std::string_view what);

enum class TemplateTokenKind : uint8_t {
  kText,  // between tags, white space control done
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,   // escapes resolved
  kInteger,  // number
  kOperator,
  kEnd,  // of the source; always the last
};
struct TemplateToken {
  TemplateTokenKind kind = TemplateTokenKind::kEnd;
  std::string text;  // of text, name, string and operator
  int64_t number = 0;
  TemplatePosition position;
};

inline constexpr size_t kTemplateBytesMax = size_t{64} << 10;  // of source

// Cuts Jinja source into tokens as jinja2 does with trim_blocks and lstrip_blocks on and keep_trailing_newline off.
// kUnsupported: a raw block, a number that is no plain decimal integer, \N{...}. kInvalidArgument: broken syntax,
// source that is too long or not UTF-8.
Result<std::vector<TemplateToken>> lex_template(std::string_view source);

}  // namespace spillway
