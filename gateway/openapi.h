#pragma once

#include <cstdint>
#include <string>

#include "gateway/served_model.h"

namespace spillway {

// /openapi.json: the tables of fields and routes as an OpenAPI 3.1 document, with the bounds of the served model.
// `max_model_len`: in force now, tokens.
std::string openapi_body(const ServedModel& model, uint32_t max_model_len);

}  // namespace spillway
