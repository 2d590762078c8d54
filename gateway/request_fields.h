#pragma once

#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "common/sampling_params.h"
#include "gateway/field_table.h"
#include "gateway/openai_response.h"

// The checks that the table of fields asks for, and the reading that routes share. Pure; any thread.
namespace spillway {

// 400 naming the field at fault.
tl::unexpected<ApiError> refuse(std::string param, std::string message, std::string code = "invalid_value");

// Bounded in depth (kJsonDepthMax) and number of values (kJsonValuesMax); always an object. Of equal keys the last
// counts.
Parsed<nlohmann::json> parse_request_json(std::string_view body);

// The field, or nullptr where it is absent or null, which mean the same as in OpenAI's API.
const nlohmann::json* find_field(const nlohmann::json& object, std::string_view name);

// Null, false or empty: asks for nothing.
bool switched_off(const nlohmann::json& value);

// A whole number, also one that is written with a point (16.0), which JSON Schema counts as an integer; such a one only
// below 2^53. get<>() of an integer type then gives it, if the type holds it.
bool is_whole(const nlohmann::json& value);

// Types of all numbers, booleans and plain strings that the route takes, and bounds of numbers; refuses what this
// server cannot do where it is asked for.
Parsed<void> check_fields(Route route, const nlohmann::json& body);

// The name of the one of these fields that is there; refuses none and several.
Parsed<const char*> the_one_given(const nlohmann::json& body, std::initializer_list<const char*> names);

// The strings of `stop`: one, or a list.
Parsed<std::vector<std::string>> read_stop(const nlohmann::json& body);

// {"token id": bias}, as OpenAI's API has it. `vocab`: ids are below.
Parsed<std::vector<LogitBias>> read_logit_bias(const nlohmann::json& body, uint32_t vocab);

// Names of fields that the route does not know, at most 8, made printable.
std::vector<std::string> unknown_fields(Route route, const nlohmann::json& body);
// Adds those of an object inside the body that are not null, as `where` and the name; the bound is over all, and none
// is named twice.
void add_unknown_members(std::string_view where, const nlohmann::json& object, std::span<const std::string_view> known,
                         std::vector<std::string>& names);

// A stranger's word that goes into a header or a message: at most 64 bytes of printable ASCII without quotes or commas.
std::string printable(std::string_view word);

}  // namespace spillway
