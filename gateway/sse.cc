#include "gateway/sse.h"

namespace spillway {

void append_sse_event(std::string& out, std::string_view payload) {
  // CR, LF and CR LF all end a line of an event stream: each must begin a new `data:` line, or it would end the field.
  while (true) {
    const size_t end = payload.find_first_of("\r\n");
    out.append("data: ").append(payload.substr(0, end)).append("\n");
    if (end == std::string_view::npos) break;
    payload.remove_prefix(end + (payload.substr(end, 2) == "\r\n" ? 2 : 1));
  }
  out.append("\n");
}

}  // namespace spillway
