#pragma once

#include <string_view>

#include "gateway/http_reply.h"
#include "gateway/http_shared.h"

namespace spillway {

// What a GET is answered with: health, metrics, models, version. Http thread. REQUIRES: reply.refuse() let it pass.
HttpResponse page_of(std::string_view path, const HttpReply& reply, HttpShared& shared);

}  // namespace spillway
