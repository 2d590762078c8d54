#pragma once

#include <string_view>

#include "gateway/http_reply.h"

namespace spillway {

// What makes it doubtful where a request ends or whom it is for (RFC 9112, sections 3.2, 6.1 and 6.3); empty: nothing.
// A proxy in front may read such a header in another way and let a second request pass as the body of the first, so it
// is refused, and what follows on its connection is never read as a request. Beyond what Beast's parser refuses itself,
// which takes lists of equal lengths and reads a body of unknown coding as none. A literal.
std::string_view framing_fault(const HttpRequest& request);

// A client that waits to be told that its body is wanted; one of HTTP/1.0 would not understand (RFC 9110, 10.1.1).
bool awaits_continue(const HttpRequest& request);

}  // namespace spillway
