#include "formats/gguf.h"

#include <fmt/format.h>

#include <utility>

#include "formats/gguf_parser.h"
#include "formats/mapped_file.h"

namespace spillway {

struct GgufFile::Content {
  MappedFile mapping;            // of open()
  std::vector<std::byte> owned;  // of from_bytes()
  std::span<const std::byte> bytes;
  GgufTables tables;
};

namespace {

template <class T>
Result<const T*> find_value(const GgufTables& tables, std::string_view key, const char* kind) {
  const auto entry = tables.metadata.find(std::string(key));
  if (entry == tables.metadata.end())
    return fail(ErrorCode::kInvalidArgument, fmt::format("the GGUF file has no metadata key {}", key));
  const T* const value = std::get_if<T>(&entry->second);
  if (value == nullptr) return fail(ErrorCode::kInvalidArgument, fmt::format("metadata key {} is not {}", key, kind));
  return value;
}

template <class T>
Result<const std::vector<T>*> find_array(const GgufTables& tables, std::string_view key, const char* kind) {
  const Result<const GgufArray*> array = find_value<GgufArray>(tables, key, kind);
  if (!array) return tl::unexpected<Error>(array.error());
  const auto* const items = std::get_if<std::vector<T>>(*array);
  if (items == nullptr) return fail(ErrorCode::kInvalidArgument, fmt::format("metadata key {} is not {}", key, kind));
  return items;
}

}  // namespace

GgufFile::GgufFile(std::unique_ptr<Content> content) : content_(std::move(content)) {}
GgufFile::GgufFile(GgufFile&&) noexcept = default;
GgufFile& GgufFile::operator=(GgufFile&&) noexcept = default;
GgufFile::~GgufFile() = default;

Result<GgufFile> GgufFile::open(const std::string& path) {
  Result<MappedFile> mapping = MappedFile::open(path);
  if (!mapping) return tl::unexpected<Error>(mapping.error());
  auto content = std::make_unique<Content>();
  content->mapping = std::move(*mapping);
  content->bytes = content->mapping.bytes();
  Result<GgufTables> tables = parse_gguf(content->bytes);
  if (!tables) return fail(tables.error().code, path + ": " + tables.error().detail);
  content->tables = std::move(*tables);
  return GgufFile(std::move(content));
}

Result<GgufFile> GgufFile::from_bytes(std::vector<std::byte> bytes) {
  auto content = std::make_unique<Content>();
  content->owned = std::move(bytes);
  content->bytes = content->owned;
  Result<GgufTables> tables = parse_gguf(content->bytes);
  if (!tables) return tl::unexpected<Error>(tables.error());
  content->tables = std::move(*tables);
  return GgufFile(std::move(content));
}

bool GgufFile::contains(std::string_view key) const { return content_->tables.metadata.contains(std::string(key)); }

Result<uint64_t> GgufFile::get_uint(std::string_view key) const {
  if (const Result<const int64_t*> number = find_value<int64_t>(content_->tables, key, ""); number && **number >= 0)
    return static_cast<uint64_t>(**number);
  return find_value<uint64_t>(content_->tables, key, "an unsigned integer").map([](const uint64_t* v) { return *v; });
}

Result<double> GgufFile::get_float(std::string_view key) const {
  return find_value<double>(content_->tables, key, "a floating-point number").map([](const double* v) { return *v; });
}

Result<std::string> GgufFile::get_string(std::string_view key) const {
  return find_value<std::string>(content_->tables, key, "a string").map([](const std::string* v) { return *v; });
}

Result<bool> GgufFile::get_bool(std::string_view key) const {
  return find_value<bool>(content_->tables, key, "a boolean").map([](const bool* v) { return *v; });
}

Result<const std::vector<std::string>*> GgufFile::get_strings(std::string_view key) const {
  return find_array<std::string>(content_->tables, key, "a list of strings");
}

Result<const std::vector<int64_t>*> GgufFile::get_ints(std::string_view key) const {
  return find_array<int64_t>(content_->tables, key, "a list of integers");
}

Result<const std::vector<double>*> GgufFile::get_floats(std::string_view key) const {
  return find_array<double>(content_->tables, key, "a list of floating-point numbers");
}

Result<const GgufTensor*> GgufFile::tensor(std::string_view name) const {
  const auto entry = content_->tables.tensor_index.find(std::string(name));
  if (entry == content_->tables.tensor_index.end())
    return fail(ErrorCode::kInvalidArgument, fmt::format("the GGUF file has no tensor {}", name));
  return &content_->tables.tensors[entry->second];
}

std::span<const GgufTensor> GgufFile::tensors() const { return content_->tables.tensors; }

std::span<const std::byte> GgufFile::bytes() const { return content_->bytes; }

std::optional<FileFacts> GgufFile::facts() const {
  if (content_->mapping.bytes().empty()) return std::nullopt;
  return content_->mapping.facts();
}

void GgufFile::release(std::span<const std::byte> part) const {
  if (!content_->mapping.bytes().empty()) content_->mapping.release(part);
}

}  // namespace spillway
