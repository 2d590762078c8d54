#pragma once

#include <spdlog/spdlog.h>

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <variant>

// Logging is the one global: spdlog's default logger, set up once by main. Log state changes and failures, never per
// token, never prompt text. What strangers sent goes into fields: those are quoted and escaped. In every line control
// characters and all bytes above ASCII are escaped, so that no text can forge a line or speak to a terminal.
namespace spillway {

enum class LogFormat : uint8_t { kText, kJson };

// Of --log-format: "text", "json", or "auto": JSON for a server whose stderr is no terminal, else text.
LogFormat log_format_of(std::string_view name, bool server);

// Lines on stderr, each with time, level and `process` ("gateway", "prefill 0"): `12:00:00.123 info  [gateway] event
// key=value`, or one JSON object a line with time (RFC 3339, UTC), level, process, message and the fields.
void start_logging(const std::string& process, spdlog::level::level_enum level, LogFormat format);

// What is for people in front of the screen: a plain line, or where the log is JSON a line of it.
void say(const std::string& what);
void say_fatal(const std::string& what);  // the last words of a process

// A view: of its text, until log_event() returns.
class LogField {
 public:
  using Value = std::variant<std::string_view, int64_t, uint64_t, double>;
  // An empty text leaves the field out.
  LogField(const char* name, std::string_view text) : key(name), value(text) {}
  LogField(const char* name, std::unsigned_integral auto number) : key(name), value(uint64_t{number}) {}
  LogField(const char* name, std::signed_integral auto number) : key(name), value(int64_t{number}) {}
  LogField(const char* name, std::floating_point auto number) : key(name), value(double{number}) {}  // 3 decimals

  std::string_view key;  // none of time, level, process, message
  Value value;
};

void log_event(spdlog::level::level_enum level, std::string_view event, std::initializer_list<LogField> fields);

}  // namespace spillway
