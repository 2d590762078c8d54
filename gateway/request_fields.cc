#include "gateway/request_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "gateway/openai_request.h"
#include "gateway/stop_matcher.h"

namespace spillway {
namespace {

using Json = nlohmann::json;

// Every number that a request may carry, with its bounds: the one table. kNeutral: a feature this server does not have,
// accepted where the value switches it off.
enum class NumberUse : uint8_t { kUsed, kNeutral };
struct NumberField {
  std::string_view name;
  double low, high;
  bool integer;
  NumberUse use;
};
constexpr double kAboveZero = std::numeric_limits<float>::min();  // "over 0", and still so as a float
constexpr NumberField kNumbers[] = {
    {"max_tokens", 1, kPromptTokensMax, true, NumberUse::kUsed},
    {"max_completion_tokens", 1, kPromptTokensMax, true, NumberUse::kUsed},
    {"temperature", 0, 2, false, NumberUse::kUsed},
    {"seed", -0x1p63, 0x1p64, true, NumberUse::kUsed},  // any 64-bit integer
    {"top_p", kAboveZero, 1, false, NumberUse::kUsed},
    {"top_k", -1, kTokenIdEnd, true, NumberUse::kUsed},
    {"min_p", 0, 1, false, NumberUse::kUsed},
    {"priority", -kPriorityMax, kPriorityMax, true, NumberUse::kUsed},
    {"min_tokens", 0, kPromptTokensMax, true, NumberUse::kUsed},
    {"presence_penalty", -kPenaltyMax, kPenaltyMax, false, NumberUse::kUsed},
    {"frequency_penalty", -kPenaltyMax, kPenaltyMax, false, NumberUse::kUsed},
    {"repetition_penalty", kAboveZero, kPenaltyMax, false, NumberUse::kUsed},
    {"n", 1, 1, true, NumberUse::kNeutral},
    {"best_of", 1, 1, true, NumberUse::kNeutral},
    {"top_logprobs", 0, 0, true, NumberUse::kNeutral},
};
constexpr std::string_view kBooleans[] = {"stream", "logit_digests", "ignore_eos", "echo"};
// Features this server does not have: accepted when null, false or empty, else refused by name.
constexpr std::string_view kUnsupported[] = {
    // OpenAI's
    "tools", "functions", "function_call", "logprobs", "suffix", "audio", "prediction", "web_search_options", "images",
    // other servers'
    "prompt_logprobs", "bad_words", "prompt_embeds", "use_beam_search", "guided_json", "guided_regex", "guided_choice",
    "guided_grammar", "structured_outputs", "grammar", "json_schema", "chat_template", "chat_template_kwargs",
    "include_stop_str_in_output"};
// Said of the request, not of the answer: no effect here and none missed.
constexpr std::string_view kHarmless[] = {
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"};
// Read by openai_request.cc, or checked by check_modes.
constexpr std::string_view kOthers[] = {"model",      "prompt",          "messages",    "stream_options",
                                        "stop",       "response_format", "tool_choice", "modalities",
                                        "logit_bias", "stop_token_ids"};

template <size_t N>
bool contains(const std::string_view (&table)[N], std::string_view name) {
  return std::find(std::begin(table), std::end(table), name) != std::end(table);
}

tl::unexpected<ApiError> unsupported(std::string_view name) {
  return refuse(std::string(name), fmt::format("{} is not supported by this server: leave it out", name),
                "unsupported");
}

Parsed<void> check_number(const Json& body, const NumberField& rule) {
  const Json* const value = find_field(body, rule.name);
  if (value == nullptr) return {};
  std::string name(rule.name);
  if (rule.integer ? !value->is_number_integer() : !value->is_number())
    return refuse(name, fmt::format("{} must be {}", name, rule.integer ? "an integer" : "a number"), "invalid_type");
  const auto number = value->get<double>();
  if (number >= rule.low && number <= rule.high) return {};
  if (rule.use == NumberUse::kNeutral)
    return refuse(name, fmt::format("{} {} is not supported by this server: leave it out", name, number),
                  "unsupported");
  const std::string low = rule.low == kAboveZero ? "above 0" : fmt::format("from {}", rule.low);
  return refuse(name, fmt::format("{} is {}: it must be {} and at most {}", name, number, low, rule.high));
}

// Fields that choose how to answer: the plain way is the only one.
Parsed<void> check_modes(const Json& body) {
  if (const Json* const format = find_field(body, "response_format"))
    if (!format->is_object() || format->value("type", Json()) != "text") return unsupported("response_format");
  if (const Json* const choice = find_field(body, "tool_choice"))
    if (*choice != "none" && *choice != "auto") return unsupported("tool_choice");
  if (const Json* const modalities = find_field(body, "modalities"))
    if (*modalities != Json::array({"text"})) return unsupported("modalities");
  return {};
}

struct TooDeep {};
struct TooMany {};

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
  return value.is_null() || (value.is_boolean() && !value.get<bool>()) || (value.is_structured() && value.empty());
}

Parsed<void> check_fields(const Json& body) {
  for (const NumberField& rule : kNumbers)
    if (auto checked = check_number(body, rule); !checked) return checked;
  for (const std::string_view name : kBooleans)
    if (const Json* const value = find_field(body, name); value != nullptr && !value->is_boolean())
      return refuse(std::string(name), fmt::format("{} must be true or false", name), "invalid_type");
  if (const Json* const echo = find_field(body, "echo"); echo != nullptr && *echo == true) return unsupported("echo");
  for (const std::string_view name : kUnsupported)
    if (const Json* const value = find_field(body, name); value != nullptr && !switched_off(*value))
      return unsupported(name);
  return check_modes(body);
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
    if (strings.back().empty() || strings.back().size() > kStopBytesMax)
      return refuse("stop", fmt::format("stop[{}] has {} bytes: it must have 1 to {}", strings.size() - 1,
                                        strings.back().size(), kStopBytesMax));
  }
  return strings;
}

std::vector<std::string> unknown_fields(const Json& body) {
  constexpr size_t kNamed = 8;
  std::vector<std::string> names;
  for (const auto& [name, value] : body.items()) {
    const bool known = contains(kBooleans, name) || contains(kUnsupported, name) || contains(kHarmless, name) ||
                       contains(kOthers, name) ||
                       std::any_of(std::begin(kNumbers), std::end(kNumbers),
                                   [&](const NumberField& rule) { return rule.name == name; });
    if (!known && names.size() < kNamed) names.push_back(printable(name));
  }
  return names;
}

std::string printable(std::string_view word) {
  std::string out(word.substr(0, 64));
  for (char& c : out)
    if (c < 0x21 || c > 0x7e || c == '"' || c == '\\' || c == ',') c = '?';
  return out;
}

}  // namespace spillway
