#include "common/log.h"

#include <fmt/format.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

namespace spillway {
namespace {

using Json = nlohmann::ordered_json;

// In the source location of a message whose payload is an object of fields; only the address counts.
constexpr char kHasFields[] = "fields";

bool is_printable(char c) { return c >= 0x20 && c <= 0x7e; }

std::string printable(std::string_view text) {
  std::string shown;
  for (const char c : text) shown += is_printable(c) ? std::string(1, c) : fmt::format("\\x{:02x}", c & 0xffu);
  return shown;
}

std::string dump(const Json& value) { return value.dump(-1, ' ', true, Json::error_handler_t::replace); }

// A word stands bare, everything else in quotes.
std::string field_text(const Json& value) {
  const auto* const text = value.get_ptr<const std::string*>();
  const bool bare = text == nullptr || std::ranges::all_of(*text, [](char c) {
                      return is_printable(c) && c != ' ' && c != '"' && c != '\\' && c != '=';
                    });
  return bare && text != nullptr ? *text : dump(value);
}

bool has_fields(const spdlog::details::log_msg& message) { return message.source.filename == kHasFields; }

std::string_view payload_of(const spdlog::details::log_msg& message) {
  return {message.payload.data(), message.payload.size()};
}

class TextPayload final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    std::string line;
    if (!has_fields(message)) line = printable(payload_of(message));
    if (has_fields(message)) {
      const Json fields = Json::parse(payload_of(message));
      for (const auto& [key, value] : fields.items())
        line += line.empty() ? printable(value.get<std::string>()) : fmt::format(" {}={}", key, field_text(value));
    }
    out.append(line.data(), line.data() + line.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<TextPayload>(); }
};

// The members of the line's object behind its level.
class JsonPayload final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    const std::string process = dump(std::string(message.logger_name.data(), message.logger_name.size()));
    std::string payload(payload_of(message));
    if (!has_fields(message)) payload = dump(Json::object({{"message", payload}}));
    const std::string line = fmt::format("\"process\":{},{}", process, std::string_view(payload).substr(1));
    out.append(line.data(), line.data() + line.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<JsonPayload>(); }
};

LogFormat format_now = LogFormat::kText;

}  // namespace

LogFormat log_format_of(std::string_view name, bool server) {
  if (name == "auto") return server && ::isatty(STDERR_FILENO) != 1 ? LogFormat::kJson : LogFormat::kText;
  return name == "json" ? LogFormat::kJson : LogFormat::kText;
}

void start_logging(const std::string& process, spdlog::level::level_enum level, LogFormat format) {
  std::unique_ptr<spdlog::pattern_formatter> formatter;
  if (format == LogFormat::kJson) {
    formatter = std::make_unique<spdlog::pattern_formatter>(spdlog::pattern_time_type::utc);
    formatter->add_flag<JsonPayload>('*').set_pattern(R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%*)");
  } else {
    formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<TextPayload>('*').set_pattern("%H:%M:%S.%e %^%-5l%$ [%n] %*");
  }
  auto logger =
      std::make_shared<spdlog::logger>(printable(process), std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_level(level);
  logger->set_formatter(std::move(formatter));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  format_now = format;
}

void say(const std::string& what) {
  if (format_now == LogFormat::kJson) {
    spdlog::info("{}", what);
  } else {
    std::fprintf(stderr, "%s\n", what.c_str());
  }
}

void say_fatal(const std::string& what) {
  if (format_now == LogFormat::kJson) {
    spdlog::critical("{}", what);
  } else {
    std::fprintf(stderr, "spillway: %s\n", what.c_str());
  }
}

void log_event(spdlog::level::level_enum level, std::string_view event, std::initializer_list<LogField> fields) {
  spdlog::logger* const logger = spdlog::default_logger_raw();
  if (!logger->should_log(level)) return;
  Json line = Json::object({{"message", std::string(event)}});
  for (const LogField& field : fields) {
    const std::string key(field.key);
    if (const auto* const number = std::get_if<double>(&field.value)) {
      line[key] = std::round(*number * 1000) / 1000;
    } else if (const auto* const text = std::get_if<std::string_view>(&field.value)) {
      if (!text->empty()) line[key] = std::string(*text);
    } else if (const auto* const count = std::get_if<uint64_t>(&field.value)) {
      line[key] = *count;
    } else {
      line[key] = std::get<int64_t>(field.value);
    }
  }
  logger->log(spdlog::source_loc{kHasFields, 1, ""}, level, spdlog::string_view_t(dump(line)));
}

}  // namespace spillway
