// docs/api.md and /openapi.json say what the tables say.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <string_view>

#include "gateway/field_table.h"
#include "gateway/route_table.h"
#include "tests/gateway/ask.h"
#include "tests/gateway/loop_scripts.h"

namespace spillway {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kBegin = "<!-- made from the tables: begin -->\n", kEnd = "<!-- end -->\n";

std::string number(double value) {
  if (value == kAboveZero) return "above 0";
  return value == 0x1p64 ? "2^64 - 1" : value == -0x1p63 ? "-2^63" : fmt::format("{}", value);
}

std::string bounds(const Field& field) {
  if (field.high == 0) return "";
  const bool single = field.type == FieldType::kInteger || field.type == FieldType::kNumber;
  std::string high = number(field.high);
  if (field.limit == FieldLimit::kContext) high = "what the context leaves";
  if (field.limit == FieldLimit::kVocabulary && single) high = "the vocabulary";
  if (single) return fmt::format("{} to {}", number(field.low), high);
  return fmt::format("{} to {}{}", number(field.low), high, field.limit == FieldLimit::kContext ? "" : " entries");
}

std::string_view type(FieldType type) {
  switch (type) {
    case FieldType::kInteger: return "integer";
    case FieldType::kNumber: return "number";
    case FieldType::kBoolean: return "boolean";
    case FieldType::kString: return "string";
    case FieldType::kStrings: return "string, list";
    case FieldType::kTokenIds: return "token ids";
    case FieldType::kPrompt: return "string, list";
    case FieldType::kMessages: return "messages";
    case FieldType::kBiases:
    case FieldType::kStreamOptions: return "object";
    case FieldType::kAny: break;
  }
  return "any";
}

std::string routes(const Field& field) {
  std::string names;
  for (const RouteRule& route : route_table())
    if (route.body && field.takes(*route.body))
      names += (names.empty() ? "" : ", ") + std::string(route.path.substr(route.path.starts_with("/v1") ? 4 : 1));
  return names == "completions, chat/completions" ? "both" : names;
}

std::string tables() {
  std::string out = "| route | answers with | what |\n|---|---|---|\n";
  for (const RouteRule& route : route_table())
    out +=
        fmt::format("| `{} {}` | {} | {} |\n", route.post() ? "POST" : "GET", route.path, route.answer, route.meaning);
  out += "\n| field | of | type | bounds | default | meaning |\n|---|---|---|---|---|---|\n";
  std::string neutral, unsupported, harmless;
  const auto add = [](std::string& list, std::string_view word) {
    list += fmt::format("{}`{}`", list.empty() ? "" : ", ", word);
  };
  for (const Field& field : field_table()) {
    switch (field.use) {
      case FieldUse::kUsed:
        out += fmt::format("| `{}` | {} | {} | {} | {} | {} |\n", field.name, routes(field), type(field.type),
                           bounds(field), field.fallback, field.meaning);
        break;
      case FieldUse::kNeutral: add(neutral, fmt::format("{}: {}", field.name, field.fallback)); break;
      case FieldUse::kUnsupported: add(unsupported, field.name); break;
      case FieldUse::kHarmless: add(harmless, field.name); break;
    }
  }
  out += fmt::format("\nTaken with one of these values only: {}.\n", neutral);
  out += fmt::format("\nNot supported, taken where null, false or empty: {}.\n", unsupported);
  return out + fmt::format("\nWithout effect: {}.\n", harmless);
}

TEST(ApiDocument, DocsHoldExactlyWhatTheTablesMake) {
  std::ifstream file(SPILLWAY_API_DOCUMENT);
  std::stringstream text;
  text << file.rdbuf();
  std::string document = text.str();
  const size_t begin = document.find(kBegin), end = document.find(kEnd);
  ASSERT_TRUE(begin != std::string::npos && end != std::string::npos);
  const size_t from = begin + kBegin.size();
  if (std::getenv("SPILLWAY_WRITE_API_DOCUMENT") != nullptr) {
    std::ofstream(SPILLWAY_API_DOCUMENT) << document.replace(from, end - from, tables());
    return;
  }
  EXPECT_EQ(document.substr(from, end - from), tables())
      << "SPILLWAY_WRITE_API_DOCUMENT=1 gateway_test --gtest_filter='ApiDocument.*' writes docs/api.md anew";
}

TEST(ApiDocument, TheServedDocumentHasTheNumbersOfTheModel) {
  FakeLoop loop(says("x"));
  const RawReply reply = fetch(loop, "/openapi.json");
  ASSERT_EQ(reply.status, 200u);
  const Json document = Json::parse(reply.body);
  EXPECT_EQ(document["openapi"], "3.1.0");
  const auto fields = [&](const char* path) {
    return document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
  };
  const Json text = fields("/v1/completions");
  EXPECT_EQ(text["required"], Json({"prompt"}));
  EXPECT_EQ(text["properties"]["max_tokens"]["maximum"], 999);
  EXPECT_EQ(text["properties"]["max_tokens"]["minimum"], 0);
  EXPECT_EQ(fields("/v1/chat/completions")["properties"]["max_tokens"]["minimum"], 1) << "there is no echo in a chat";
  EXPECT_EQ(text["properties"]["top_k"]["maximum"], 259);
  EXPECT_EQ(text["properties"]["temperature"]["type"], Json({"number", "null"}));
  EXPECT_EQ(text["properties"]["temperature"]["maximum"], 2);
  EXPECT_EQ(text["properties"]["seed"]["maximum"], UINT64_MAX);
  EXPECT_EQ(text["properties"]["stop_token_ids"]["items"]["maximum"], 258);
  EXPECT_EQ(text["properties"]["model"]["enum"], Json({"bytes", "org/second", "*", nullptr}));
  EXPECT_FALSE(text["properties"].contains("messages"));
  const Json& message = document["components"]["schemas"]["Message"]["properties"];
  for (const char* const name : {"images", "tool_calls"})
    EXPECT_EQ(message[name]["enum"], Json({nullptr, false, "", Json::array(), Json::object()})) << name;
  EXPECT_EQ(fields("/v1/chat/completions")["required"], Json({"messages"}));
  EXPECT_EQ(fields("/detokenize")["required"], Json({"tokens"}));
}

// Of JSON Schema what the schema of /health uses.
void expect_fits(const Json& value, const Json& schema) {
  SCOPED_TRACE(value.dump() + " against " + schema.dump());
  if (schema.contains("enum")) {
    EXPECT_NE(std::ranges::find(schema["enum"], value), schema["enum"].end());
  }
  if (schema.contains("type")) {
    const bool fits = (schema["type"] == "object" && value.is_object()) ||
                      (schema["type"] == "array" && value.is_array()) ||
                      (schema["type"] == "string" && value.is_string());
    ASSERT_TRUE(fits);
  }
  for (const Json& name : schema.value("required", Json::array())) EXPECT_TRUE(value.contains(name)) << name;
  if (value.is_array()) {
    EXPECT_GE(value.size(), schema.value("minItems", 0u));
    for (const Json& item : value) expect_fits(item, schema["items"]);
  }
  if (!value.is_object()) return;
  EXPECT_EQ(schema.value("additionalProperties", true), false);
  for (const auto& [name, member] : value.items()) {
    ASSERT_TRUE(schema["properties"].contains(name)) << name;
    expect_fits(member, schema["properties"][name]);
  }
}

TEST(ApiDocument, HealthIsWhatItsSchemaSays) {
  FakeLoop loop(says("x"));
  const Json health = Json::parse(fetch(loop, "/openapi.json").body)["components"]["schemas"]["Health"];
  const auto said = [&](GatewayHealth now) {
    GatewayStatus status;
    status.health = std::move(now);
    loop.server->publish(status);
    const Json body = Json::parse(fetch(loop, "/health").body);
    expect_fits(body, health);
    return body["status"].get<std::string>();
  };
  EXPECT_EQ(said({}), "ok");
  EXPECT_EQ(said({.degraded = {"prefill 1 is draining"}}), "ok");
  EXPECT_EQ(said({.draining = true, .reasons = {"the gateway is draining"}}), "draining");
  EXPECT_EQ(said({.reasons = {"no decode node is connected"}, .degraded = {"prefill 1 is draining"}}), "unavailable");
  expect_fits(Json::parse(fetch(loop, "/health/live").body), health);
}

TEST(ApiDocument, StopTokensArePromisedAsManyAsAreTaken) {
  FakeLoop loop(says("x"));
  const Json document = Json::parse(fetch(loop, "/openapi.json").body);
  const size_t most = document["paths"]["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]
                              ["schema"]["properties"]["stop_token_ids"]["maxItems"];
  for (const bool ignore_eos : {false, true})
    for (const size_t count : {most, most + 1}) {
      const Json body = {{"prompt", "a"}, {"stop_token_ids", std::vector<int>(count, 7)}, {"ignore_eos", ignore_eos}};
      EXPECT_EQ(ask(loop, "/v1/completions", body.dump()).status, count == most ? 200u : 400u);
    }
}

TEST(ApiDocument, EveryRouteOfTheTableIsServedAndEveryOtherIsNot) {
  FakeLoop loop(says("x"));
  for (const RouteRule& route : route_table()) {
    const std::string path = route.path.ends_with("{name}") ? "/v1/models/bytes" : std::string(route.path);
    if (route.post()) {
      EXPECT_EQ(fetch(loop, path).status, 405u) << path;
      EXPECT_EQ(ask(loop, path, "[]").status, 400u) << path;
    } else {
      EXPECT_EQ(fetch(loop, path).status, 200u) << path;
    }
  }
  EXPECT_EQ(fetch(loop, "/openapi").status, 404u);
}

TEST(ApiDocument, NamesOfModelsMayBePercentEncoded) {
  FakeLoop loop(says("x"));
  for (const char* const good : {"org/second", "org%2Fsecond", "org%2fsecond", "%62ytes"})
    EXPECT_EQ(fetch(loop, std::string("/v1/models/") + good).status, 200u) << good;
  for (const char* const bad : {"org%252Fsecond", "org%2", "org%", "bytes%00", "%zzbytes", "%-1bytes"})
    EXPECT_EQ(fetch(loop, std::string("/v1/models/") + bad).status, 404u) << bad;
}

}  // namespace
}  // namespace spillway
