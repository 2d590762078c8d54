#pragma once

#include <string>
#include <string_view>

// Server-sent events (WHATWG HTML, section 9.2): how one payload becomes bytes of an event stream. Pure.
namespace spillway {

// Appends one event that carries `payload`, a line of `data:` for each of its lines, closed by an empty line.
void append_sse_event(std::string& out, std::string_view payload);

inline constexpr std::string_view kSseDone = "[DONE]";      // payload of an OpenAI stream's last event
inline constexpr std::string_view kSsePing = ": ping\n\n";  // a comment: no event

}  // namespace spillway
