#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "gateway/field_table.h"

// Every path that the server answers: the one table, behind routing, /openapi.json and docs/api.md. Immutable; any
// thread.
namespace spillway {

inline constexpr std::string_view kModelPath = "/v1/models/";  // followed by a model's name

struct RouteRule {
  std::string_view path;
  std::optional<Route> body;  // of a POST; nothing: a GET
  std::string_view answer;    // of status 200: a schema of /openapi.json, or a media type
  std::string_view meaning;
  bool post() const { return body.has_value(); }
  bool answers() const { return body && (*body == Route::kCompletions || *body == Route::kChatCompletions); }
  bool health() const { return path.starts_with("/health"); }  // needs no key: it tells nothing of what is served
};

std::span<const RouteRule> route_table();
// nullptr: no such path. `path`: without query.
const RouteRule* find_route(std::string_view path);

}  // namespace spillway
