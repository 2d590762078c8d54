#include "tests/support/gguf_writer.h"

#include <fstream>

#include "common/check.h"

namespace spillway {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint32_t kVersion = 3;
constexpr uint32_t kDefaultAlignment = 32;

}  // namespace

GgufWriter::GgufWriter(uint32_t alignment) : alignment_(alignment) {
  CHECK(alignment > 0);
  if (alignment != kDefaultAlignment) add("general.alignment", alignment);
}

void GgufWriter::begin_entry(std::string_view key, uint32_t type) {
  put_value(entries_, key);
  put_value(entries_, type);
  ++entry_count_;
}

GgufWriter& GgufWriter::add_raw(std::string_view key, uint32_t type, std::span<const std::byte> bytes) {
  begin_entry(key, type);
  entries_.insert(entries_.end(), bytes.begin(), bytes.end());
  return *this;
}

GgufWriter& GgufWriter::add_tensor(std::string_view name, uint32_t type, const std::vector<uint64_t>& shape,
                                   std::span<const std::byte> bytes) {
  data_.resize((data_.size() + alignment_ - 1) / alignment_ * alignment_);
  put_value(tensor_infos_, name);
  put_value(tensor_infos_, checked_cast<uint32_t>(shape.size()));
  for (const uint64_t size : shape) put_value(tensor_infos_, size);
  put_value(tensor_infos_, type);
  put_value(tensor_infos_, uint64_t{data_.size()});
  data_.insert(data_.end(), bytes.begin(), bytes.end());
  ++tensor_count_;
  return *this;
}

std::vector<std::byte> GgufWriter::bytes() const {
  std::vector<std::byte> file;
  put_value(file, kMagic);
  put_value(file, kVersion);
  put_value(file, tensor_count_);
  put_value(file, entry_count_);
  file.insert(file.end(), entries_.begin(), entries_.end());
  file.insert(file.end(), tensor_infos_.begin(), tensor_infos_.end());
  file.resize((file.size() + alignment_ - 1) / alignment_ * alignment_);
  file.insert(file.end(), data_.begin(), data_.end());
  return file;
}

void GgufWriter::write(const std::string& path) const {
  const std::vector<std::byte> file = bytes();
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(file.data()), static_cast<std::streamsize>(file.size()));
  out.close();
  CHECK(!out.fail());
}

}  // namespace spillway
