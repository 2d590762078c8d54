#include "model/metadata_reader.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

namespace spillway {

std::string MetadataReader::key(std::string_view name) const { return fmt::format("{}.{}", prefix_, name); }

void MetadataReader::set_error(ErrorCode code, std::string detail) {
  if (!error_) error_ = Error{code, std::move(detail)};
}

template <class T>
T MetadataReader::take(const Result<T>& value) {
  if (value) return *value;
  set_error(value.error().code, value.error().detail);
  return T{};
}

void MetadataReader::refuse(std::string_view name, const std::string& value, const std::string& supported) {
  set_error(ErrorCode::kUnsupported, fmt::format("{} is {}, supported is {}", key(name), value, supported));
}

uint64_t MetadataReader::required(std::string_view name, uint64_t low, uint64_t high) {
  const Result<uint64_t> value = file_.get_uint(key(name));
  if (value && *value >= low && *value <= high) return *value;
  if (value) refuse(name, std::to_string(*value), fmt::format("{} to {}", low, high));
  return value ? 0 : take(value);
}

uint64_t MetadataReader::optional(std::string_view name, uint64_t absent, uint64_t low, uint64_t high) {
  return has(name) ? required(name, low, high) : absent;
}

double MetadataReader::required_real(std::string_view name, double low, double high) {
  const Result<double> value = file_.get_float(key(name));
  if (value && std::isfinite(*value) && *value >= low && *value <= high) return *value;
  if (value) refuse(name, fmt::format("{}", *value), fmt::format("{} to {}", low, high));
  return value ? 0.0 : take(value);
}

double MetadataReader::optional_real(std::string_view name, double absent, double low, double high) {
  return has(name) ? required_real(name, low, high) : absent;
}

std::string MetadataReader::optional_text(std::string_view name, std::string_view absent) {
  return has(name) ? take(file_.get_string(key(name))) : std::string(absent);
}

}  // namespace spillway
