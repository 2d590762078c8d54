#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

// Every field that a request may have, with its type and bounds: the one table. From it come the checks
// (request_fields), /openapi.json and the tables of docs/api.md. Immutable; any thread.
namespace spillway {

enum class Route : uint8_t { kCompletions, kChatCompletions, kTokenize, kDetokenize };

enum class FieldType : uint8_t {
  kInteger,
  kNumber,
  kBoolean,
  kString,
  kStrings,        // a string or a list of strings
  kTokenIds,       // a list of token ids
  kPrompt,         // a string, a list of token ids, or a list with one of those
  kMessages,       // of a chat
  kBiases,         // {"token id": bias}
  kStreamOptions,  // {"name": boolean}
  kAny
};

enum class FieldUse : uint8_t {
  kUsed,
  kNeutral,      // a feature this server does not have: taken where the value switches it off, else refused by name
  kUnsupported,  // the same; null, false and what is empty switch it off
  kHarmless      // said of the request, not of the answer: no effect here and none missed
};

// What the upper bound of a field is besides `high`, known only when a model is served.
enum class FieldLimit : uint8_t { kNone, kContext, kVocabulary };

struct Field {
  std::string_view name;
  uint8_t routes;  // a bit a Route
  FieldType type;
  FieldUse use;
  double low = 0, high = 0;  // of a number its value, of a list or object its entries, of a string its bytes; inclusive
  FieldLimit limit = FieldLimit::kNone;
  std::string_view fallback =
      {};  // what absent means, in words, or "required"; kNeutral: all values that are taken, as a JSON list
  std::string_view meaning = {};
  bool required() const { return fallback == "required"; }
  bool takes(Route route) const { return (routes >> static_cast<unsigned>(route) & 1) != 0; }
};

// "Over 0" in bounds, and still so as a float.
inline constexpr double kAboveZero = std::numeric_limits<float>::min();

// The members of `stream_options`, all booleans.
inline constexpr std::string_view kStreamOptions[] = {"include_usage", "continuous_usage_stats"};

std::span<const Field> field_table();
// nullptr: the route knows no such field.
const Field* find_rule(Route route, std::string_view name);

}  // namespace spillway
