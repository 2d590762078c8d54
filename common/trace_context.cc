#include "common/trace_context.h"

#include <fmt/format.h>

#include <algorithm>

namespace spillway {
namespace {

// version "-" trace-id "-" parent-id "-" trace-flags
constexpr size_t kTraceAt = 3, kParentAt = 36, kFlagsAt = 53, kSize = 55;

// Lower case only, as the format demands. At most 16 digits.
std::optional<uint64_t> hex(std::string_view digits) {
  uint64_t value = 0;
  for (const char c : digits) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && (c < 'a' || c > 'f')) return std::nullopt;
    value = value << 4 | static_cast<uint64_t>(digit ? c - '0' : c - 'a' + 10);
  }
  return value;
}

}  // namespace

std::string TraceContext::trace_text() const { return fmt::format("{:016x}{:016x}", trace_high, trace_low); }
std::string TraceContext::parent_text() const { return fmt::format("{:016x}", parent); }

std::optional<TraceContext> parse_traceparent(std::string_view header) {
  if (header.size() < kSize) return std::nullopt;
  for (const size_t dash : {kTraceAt, kParentAt, kFlagsAt})
    if (header[dash - 1] != '-') return std::nullopt;
  const auto version = hex(header.substr(0, 2));
  const auto high = hex(header.substr(kTraceAt, 16)), low = hex(header.substr(kTraceAt + 16, 16));
  const auto parent = hex(header.substr(kParentAt, 16)), flags = hex(header.substr(kFlagsAt, 2));
  if (!version || *version == 0xff || !high || !low || !parent || !flags) return std::nullopt;
  if (header.size() > kSize && (*version == 0 || header[kSize] != '-')) return std::nullopt;
  const TraceContext context{*high, *low, *parent};
  return context.valid() ? std::optional(context) : std::nullopt;
}

}  // namespace spillway
