#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "gateway/openai_request.h"
#include "gateway/openai_response.h"
#include "gateway/served_model.h"

namespace spillway {

struct PlainAnswer {  // all that was asked for: the loop is not needed
  std::string body;   // JSON
  std::vector<std::string> ignored;
};
using ApiCall = std::variant<ApiRequest, PlainAnswer>;

// What a POST asks for. Milliseconds for long texts, so not on the http thread. REQUIRES: a path that takes POST. The
// rest as for parse_api_request().
Parsed<ApiCall> parse_api_call(std::string_view path, std::string_view body, const ServedModel& model,
                               uint32_t max_model_len, uint64_t seed_default);

}  // namespace spillway
