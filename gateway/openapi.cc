#include "gateway/openapi.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

#include "common/sampling_params.h"
#include "common/version.h"
#include "gateway/chat_messages.h"
#include "gateway/field_table.h"
#include "gateway/openai_request.h"
#include "gateway/openapi_answers.h"
#include "gateway/route_table.h"
#include "gateway/stop_matcher.h"

namespace spillway {
namespace {

using Json = nlohmann::ordered_json;

Json switched_off_only() {
  return {{"enum", {nullptr, false, "", Json::array(), Json::object()}}, {"description", "not supported"}};
}

// The table's fields as JSON Schema (draft 2020-12, the dialect of OpenAPI 3.1). null means absent, so every field but
// a required one takes it.
class Schemas {
 public:
  Schemas(const ServedModel& model, uint32_t max_model_len)
      : model_(model), max_model_len_(std::min(max_model_len, model.max_model_len())) {}

  Json body(Route route) const {
    Json schema = {{"type", "object"}, {"properties", Json::object()}};
    for (const Field& field : field_table()) {
      if (!field.takes(route)) continue;
      Json one = field_schema(field);
      if (!field.meaning.empty()) one["description"] = field.meaning;
      schema["properties"][field.name] = std::move(one);
      if (field.required()) schema["required"].push_back(field.name);
    }
    return schema;
  }

 private:
  Json field_schema(const Field& field) const {
    if (field.use == FieldUse::kHarmless) return {{"description", "no effect here"}};
    if (field.use == FieldUse::kUnsupported) return switched_off_only();
    Json schema = field.type == FieldType::kAny ? neutral(field) : typed(field);
    if (field.required()) return schema;
    if (schema.contains("type")) {
      schema["type"] = {schema["type"], "null"};
      if (schema.contains("enum")) schema["enum"].push_back(nullptr);
      return schema;
    }
    schema["anyOf"].push_back({{"type", "null"}});
    return schema;
  }

  // The values that switch a feature off. Of an object, those members that must be so.
  static Json neutral(const Field& field) {
    Json any = Json::array();
    for (const Json& value : Json::parse(field.fallback)) {
      if (!value.is_object()) {
        any.push_back({{"const", value}});
        continue;
      }
      Json object = {{"type", "object"}};
      for (const auto& [name, member] : value.items()) {
        object["properties"][name] = {{"const", member}};
        object["required"].push_back(name);
      }
      any.push_back(std::move(object));
    }
    return {{"anyOf", std::move(any)}};
  }

  Json typed(const Field& field) const {
    switch (field.type) {
      case FieldType::kInteger: return number("integer", field);
      case FieldType::kNumber: return number("number", field);
      case FieldType::kBoolean:
        return field.use == FieldUse::kNeutral ? Json{{"type", "boolean"}, {"enum", Json::parse(field.fallback)}}
                                               : Json{{"type", "boolean"}};
      case FieldType::kString: return string(field);
      case FieldType::kStrings: {
        const Json one = {{"type", "string"}, {"minLength", 1}, {"maxLength", kStopCharactersMax}};
        const Json list = {{"type", "array"}, {"items", one}, {"maxItems", static_cast<uint64_t>(field.high)}};
        return {{"anyOf", {one, list}}};
      }
      case FieldType::kTokenIds: return token_ids(field);
      case FieldType::kPrompt: {
        const Json text = {{"type", "string"}, {"minLength", 1}};
        Json ids = token_ids(field);
        const Json list = {{"type", "array"},
                           {"minItems", 1},
                           {"maxItems", kPromptsMax},
                           {"items", {{"anyOf", Json::array({text, ids})}}}};
        return {{"anyOf", {text, std::move(ids), list}}};
      }
      case FieldType::kMessages:
        return {{"type", "array"},
                {"minItems", static_cast<uint64_t>(field.low)},
                {"maxItems", static_cast<uint64_t>(field.high)},
                {"items", {{"$ref", "#/components/schemas/Message"}}}};
      case FieldType::kBiases:
        return {{"type", "object"},
                {"maxProperties", static_cast<uint64_t>(field.high)},
                {"propertyNames", {{"pattern", "^[0-9]+$"}}},
                {"additionalProperties", {{"type", "number"}, {"minimum", -kBiasMax}, {"maximum", kBiasMax}}}};
      case FieldType::kStreamOptions: {
        Json options = {{"type", "object"}};
        for (const std::string_view name : kStreamOptions)
          options["properties"][name] = {{"type", {"boolean", "null"}}};
        return options;
      }
      case FieldType::kAny: break;
    }
    return Json::object();
  }

  Json string(const Field& field) const {
    if (field.name != "model" || model_.accepts_any_name()) return {{"type", "string"}};
    Json names = model_.names();
    names.push_back("*");
    return {{"type", "string"}, {"enum", std::move(names)}};
  }

  Json number(const char* type, const Field& field) const {
    double high = field.high;
    if (field.limit == FieldLimit::kContext) high = std::min<double>(high, max_model_len_ - 1);
    if (field.limit == FieldLimit::kVocabulary) high = std::min<double>(high, model_.tokenizer().vocab_size());
    return {{"type", type}, {"minimum", plain(field.low)}, {"maximum", plain(high)}};
  }

  // A whole number without a fraction.
  static Json plain(double number) {
    if (number >= 0x1p64) return UINT64_MAX;
    if (number != std::floor(number)) return number;
    return number < 0 ? Json(static_cast<int64_t>(number)) : Json(static_cast<uint64_t>(number));
  }

  Json token_ids(const Field& field) const {
    auto most = static_cast<uint64_t>(field.high);
    if (field.name == "stop_token_ids") most -= model_.stop_tokens().size();
    if (field.limit == FieldLimit::kContext) most = std::min<uint64_t>(most, max_model_len_ - 1);
    return {{"type", "array"},
            {"minItems", static_cast<uint64_t>(field.low)},
            {"maxItems", most},
            {"items", {{"type", "integer"}, {"minimum", 0}, {"maximum", model_.tokenizer().vocab_size() - 1}}}};
  }

  const ServedModel& model_;
  const uint32_t max_model_len_;
};

Json reference(std::string_view schema) { return {{"$ref", "#/components/schemas/" + std::string(schema)}}; }
Json json_content(std::string_view schema) { return {{"application/json", {{"schema", reference(schema)}}}}; }

struct Failure {
  const char *status, *why;
};
constexpr Failure kFailures[] = {{"400", "the request is malformed; the error names the field"},
                                 {"401", "no key of this server"},
                                 {"404", "no such model"},
                                 {"408", "the request did not arrive in time"},
                                 {"413", "the body is too large"},
                                 {"415", "the body is not application/json"},
                                 {"429", "the queue is full: try again after Retry-After"},
                                 {"431", "the header is too large"},
                                 {"500", "a fault of the server; the error names the request"},
                                 {"503", "not available: try again after Retry-After"},
                                 {"504", "it took too long"}};

Json answers(const RouteRule& route) {
  Json ok = {{"description", route.meaning}};
  if (route.answer.find('/') != std::string_view::npos) {
    const bool text = route.answer == "text/plain";
    ok["content"][route.answer] = {{"schema", {{"type", text ? "string" : "object"}}}};
  } else {
    ok["content"] = json_content(route.answer);
  }
  if (route.answers()) ok["content"]["text/event-stream"] = {{"schema", reference("Event")}};
  Json all = {{"200", std::move(ok)}};
  for (const auto& [status, why] : kFailures) all[status] = {{"description", why}, {"content", json_content("Error")}};
  if (route.health()) {
    all.erase("401");
    all["503"] = {{"description", "not ready, with the reason"}, {"content", json_content("Health")}};
  }
  return all;
}

}  // namespace

std::string openapi_body(const ServedModel& model, uint32_t max_model_len) {
  const Schemas schemas(model, max_model_len);
  Json document = {{"openapi", "3.1.0"},
                   {"info", {{"title", "Spillway"}, {"version", version()}}},
                   {"security", {Json::object(), {{"key", Json::array()}}}},
                   {"paths", Json::object()},
                   {"components", {{"securitySchemes", {{"key", {{"type", "http"}, {"scheme", "bearer"}}}}}}}};
  document["components"]["schemas"] = Json::parse(kAnswerSchemas);
  for (const std::string_view name : kUnsupportedMembers)
    document["components"]["schemas"]["Message"]["properties"][name] = switched_off_only();
  for (const RouteRule& route : route_table()) {
    Json operation = {{"summary", route.meaning}, {"responses", answers(route)}};
    if (route.health()) operation["security"] = Json::array();
    if (route.path.ends_with("{name}"))
      operation["parameters"] = {
          {{"name", "name"}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}, {"minLength", 1}}}}};
    if (route.body)
      operation["requestBody"] = {{"required", true},
                                  {"content", {{"application/json", {{"schema", schemas.body(*route.body)}}}}}};
    document["paths"][route.path][route.post() ? "post" : "get"] = std::move(operation);
  }
  return document.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace spillway
