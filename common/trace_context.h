#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace spillway {

// The caller's trace and the span it called from: W3C Trace Context, https://www.w3.org/TR/trace-context/. Neither id
// is 0. The sampled flag is not kept: nothing is exported that it could decide about.
struct TraceContext {
  uint64_t trace_high = 0, trace_low = 0;
  uint64_t parent = 0;
  bool valid() const { return (trace_high | trace_low) != 0 && parent != 0; }
  std::string trace_text() const;   // 32 lower-case hex digits
  std::string parent_text() const;  // 16
  bool operator==(const TraceContext&) const = default;
};

// The value of a `traceparent` header; nothing where it breaks the format (section 3.2.2; of versions above 00 what
// they share with it counts).
std::optional<TraceContext> parse_traceparent(std::string_view header);

}  // namespace spillway
