#pragma once

#include <concepts>
#include <source_location>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace spillway {

// The process cannot start: what failed, the numbers, and what to change. Thrown below main, caught once in main.
class SetupError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Prints the condition and its place on stderr, then aborts.
[[noreturn]] void check_failed(const char* condition, const std::source_location& where);

// Converts between integer and id types; a value that does not fit is a programmer error.
template <class To, class From>
constexpr To checked_cast(From value) {
  if constexpr (std::is_enum_v<From>) {
    return checked_cast<To>(static_cast<std::underlying_type_t<From>>(value));
  } else if constexpr (std::is_enum_v<To>) {
    return static_cast<To>(checked_cast<std::underlying_type_t<To>>(value));
  } else {
    if (!std::in_range<To>(value)) check_failed("checked_cast: value fits", std::source_location::current());
    return static_cast<To>(value);
  }
}

}  // namespace spillway

// Programmer errors only, always on. Nothing that depends on bytes from outside is ever a CHECK.
#define CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::spillway::check_failed(#condition, std::source_location::current()))
