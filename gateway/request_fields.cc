#include "gateway/request_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "gateway/openai_logprobs.h"
#include "gateway/openai_request.h"
#include "gateway/stop_matcher.h"

namespace spillway {
namespace {

using Json = nlohmann::json;

tl::unexpected<ApiError> unsupported(std::string_view name) {
  return refuse(std::string(name), fmt::format("{} is not supported by this server: leave it out", name),
                "unsupported");
}

Parsed<void> check_number(const Json& value, const Field& rule) {
  const bool integer = rule.type == FieldType::kInteger;
  std::string name(rule.name);
  if (integer ? !is_whole(value) : !value.is_number())
    return refuse(name, fmt::format("{} must be {}", name, integer ? "an integer" : "a number"), "invalid_type");
  const auto number = value.get<double>();
  if (number >= rule.low && number <= rule.high) return {};
  if (rule.use == FieldUse::kNeutral)
    return refuse(name, fmt::format("{} {} is not supported by this server: leave it out", name, number),
                  "unsupported");
  const std::string low = rule.low == kAboveZero ? "above 0" : fmt::format("from {}", rule.low);
  return refuse(name, fmt::format("{} is {}: it must be {} and at most {}", name, number, low, rule.high));
}

// A feature that only some values switch off. An object may say more than the one of the table.
bool is_neutral(const Json& value, const Field& rule) {
  for (const Json& taken : Json::parse(rule.fallback)) {
    if (value == taken) return true;
    if (!taken.is_object() || !value.is_object()) continue;
    if (std::all_of(taken.items().begin(), taken.items().end(),
                    [&](const auto& item) { return value.contains(item.key()) && value[item.key()] == item.value(); }))
      return true;
  }
  return false;
}

Parsed<void> check_field(const Json& value, const Field& rule) {
  if (rule.type == FieldType::kInteger || rule.type == FieldType::kNumber) return check_number(value, rule);
  if (rule.type == FieldType::kBoolean && !value.is_boolean())
    return refuse(std::string(rule.name), fmt::format("{} must be true or false", rule.name), "invalid_type");
  if (rule.type == FieldType::kString && !value.is_string())
    return refuse(std::string(rule.name), fmt::format("{} must be a string", rule.name), "invalid_type");
  if (rule.use == FieldUse::kNeutral && !is_neutral(value, rule)) return unsupported(rule.name);
  if (rule.use == FieldUse::kUnsupported && !switched_off(value)) return unsupported(rule.name);
  return {};
}

constexpr double kExactWholeEnd = 0x1p53;  // from it on a JSON number with a point may have been rounded

struct TooDeep {};
struct TooMany {};

void add_unknown(std::string_view where, std::string_view name, std::vector<std::string>& names) {
  constexpr size_t kNamed = 8;
  if (names.size() == kNamed) return;
  std::string shown = std::string(where) + printable(name);
  if (std::ranges::find(names, shown) == names.end()) names.push_back(std::move(shown));
}

}  // namespace

tl::unexpected<ApiError> refuse(std::string param, std::string message, std::string code) {
  ApiError error{.status = 400, .message = std::move(message), .param = std::move(param), .code = std::move(code)};
  return tl::unexpected(std::move(error));
}

Parsed<Json> parse_request_json(std::string_view body) {
  size_t values = 0;
  const auto bound = [&values](int depth, Json::parse_event_t event, Json&) {
    if (depth > kJsonDepthMax) throw TooDeep{};
    const bool begins = event == Json::parse_event_t::value || event == Json::parse_event_t::object_start ||
                        event == Json::parse_event_t::array_start;
    if (begins && ++values > kJsonValuesMax) throw TooMany{};
    return true;
  };
  try {
    Json json = Json::parse(body, bound);
    if (!json.is_object()) return refuse("", "the body must be a JSON object", "invalid_json");
    return json;
  } catch (const TooDeep&) {
    return refuse("", fmt::format("the body nests JSON deeper than {} levels", kJsonDepthMax), "invalid_json");
  } catch (const TooMany&) {
    return refuse("", fmt::format("the body holds more than {} JSON values", kJsonValuesMax), "invalid_json");
  } catch (const Json::parse_error& error) {
    // The library's text quotes the body, which may be prompt text: only its place is told.
    const bool utf8 = std::string_view(error.what()).find("UTF-8") != std::string_view::npos;
    return refuse("", fmt::format("the body is not valid {} at byte {}", utf8 ? "UTF-8" : "JSON", error.byte),
                  "invalid_json");
  } catch (const Json::exception&) {
    return refuse("", "the body holds a number that is out of range", "invalid_json");
  }
}

const Json* find_field(const Json& object, std::string_view name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

bool switched_off(const Json& value) {
  return value.is_null() || (value.is_boolean() && !value.get<bool>()) || (value.is_structured() && value.empty()) ||
         (value.is_string() && value.get_ref<const std::string&>().empty());
}

bool is_whole(const Json& value) {
  if (value.is_number_integer()) return true;
  if (!value.is_number_float()) return false;
  const auto number = value.get<double>();
  return std::abs(number) < kExactWholeEnd && number == std::trunc(number);
}

Parsed<void> check_fields(Route route, const Json& body) {
  for (const Field& rule : field_table()) {
    if (!rule.takes(route)) continue;
    const Json* const value = find_field(body, rule.name);
    if (value == nullptr) continue;
    if (auto checked = check_field(*value, rule); !checked) return checked;
  }
  return {};
}

Parsed<const char*> the_one_given(const Json& body, std::initializer_list<const char*> names) {
  std::vector<const char*> given;
  for (const char* const name : names)
    if (find_field(body, name) != nullptr) given.push_back(name);
  if (given.size() == 1) return given.front();
  const std::string all = fmt::format("{}", fmt::join(given.empty() ? std::vector(names) : given, ", "));
  return given.empty() ? refuse(*names.begin(), fmt::format("one of {} is needed", all))
                       : refuse(given.back(), fmt::format("{} are given: only one of them is taken", all));
}

Parsed<std::vector<std::string>> read_stop(const Json& body) {
  const Json* const stop = find_field(body, "stop");
  if (stop == nullptr) return {};
  const Json list = stop->is_string() ? Json::array({*stop}) : *stop;
  if (!list.is_array()) return refuse("stop", "stop must be a string or a list of strings", "invalid_type");
  if (list.size() > kStopStringsMax)
    return refuse("stop", fmt::format("stop has {} strings: at most {} are taken", list.size(), kStopStringsMax));
  std::vector<std::string> strings;
  for (const Json& one : list) {
    if (!one.is_string())
      return refuse("stop", fmt::format("stop[{}] must be a string", strings.size()), "invalid_type");
    strings.push_back(one.get<std::string>());
    const size_t characters = character_count(strings.back());  // as maxLength of /openapi.json counts
    if (characters == 0 || characters > kStopCharactersMax)
      return refuse("stop", fmt::format("stop[{}] has {} characters: it must have 1 to {}", strings.size() - 1,
                                        characters, kStopCharactersMax));
  }
  return strings;
}

Parsed<std::vector<LogitBias>> read_logit_bias(const Json& body, uint32_t vocab) {
  const char* const param = "logit_bias";
  std::vector<LogitBias> biases;
  const Json* const given = find_field(body, param);
  if (given == nullptr) return biases;
  if (!given->is_object()) return refuse(param, "logit_bias must be an object {token id: bias}", "invalid_type");
  if (given->size() > kLogitBiasMax)
    return refuse(param, fmt::format("logit_bias has {} entries: at most {} are taken", given->size(), kLogitBiasMax));
  for (const auto& [key, bias] : given->items()) {
    TokenId token = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (error != std::errc() || end != key.data() + key.size() || token >= vocab)
      return refuse(param,
                    fmt::format("logit_bias: '{}' is not a token id: they go from 0 to {}", printable(key), vocab - 1));
    if (!bias.is_number())
      return refuse(param, fmt::format("logit_bias of token {} must be a number", token), "invalid_type");
    const auto value = bias.get<double>();
    if (!(value >= -kBiasMax && value <= kBiasMax))
      return refuse(param, fmt::format("logit_bias of token {} is {}: it must be from {} to {}", token, value,
                                       -kBiasMax, kBiasMax));
    biases.push_back({token, static_cast<float>(value)});
  }
  return biases;
}

std::vector<std::string> unknown_fields(Route route, const Json& body) {
  std::vector<std::string> names;
  for (const auto& [name, value] : body.items())
    if (find_rule(route, name) == nullptr) add_unknown("", name, names);
  return names;
}

void add_unknown_members(std::string_view where, const Json& object, std::span<const std::string_view> known,
                         std::vector<std::string>& names) {
  for (const auto& [name, value] : object.items())
    if (!value.is_null() && std::ranges::find(known, name) == known.end()) add_unknown(where, name, names);
}

std::string printable(std::string_view word) {
  std::string out(word.substr(0, 64));
  for (char& c : out)
    if (c < 0x21 || c > 0x7e || c == '"' || c == '\\' || c == ',') c = '?';
  return out;
}

}  // namespace spillway
