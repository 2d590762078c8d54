#include "formats/gguf_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <optional>
#include <utility>
#include <variant>

#include "common/quote.h"
#include "formats/byte_reader.h"
#include "formats/gguf_types.h"

namespace spillway {
namespace {

constexpr uint32_t kMagic = 0x46554747;               // "GGUF"
constexpr uint32_t kVersionMin = 2, kVersionMax = 3;  // 3 only added big-endian files; those of late 2023 are 2
constexpr uint64_t kEntriesMax = 65536;               // metadata entries, and tensors
constexpr uint64_t kKeyBytesMax = 65535;
constexpr uint64_t kTensorNameBytesMax = 64;
constexpr uint64_t kStringBytesMax = uint64_t{1} << 24;
// Over all arrays of a file: an item costs up to 32 bytes here, so this many cost 512 MiB. Llama 3 has 0.7 million.
constexpr uint64_t kArrayItemsMax = uint64_t{1} << 24;
constexpr uint32_t kDimensionsMax = 4;
constexpr uint64_t kAlignmentDefault = 32, kAlignmentMin = 8, kAlignmentMax = 65536;
// The smallest record of each kind: an empty string and what follows. A count that does not fit the rest of the file at
// this size is refused before anything is allocated for it.
constexpr uint64_t kEntryBytesMin = 8 + 4 + 1, kTensorBytesMin = 8 + 4 + 8 + 4 + 8;

enum class ValueType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};
constexpr uint32_t kValueTypesEnd = 13;

// Bytes an array item takes in the file, at least.
uint64_t item_bytes_min(ValueType type) {
  switch (type) {
    case ValueType::kUint8:
    case ValueType::kInt8:
    case ValueType::kBool: return 1;
    case ValueType::kUint16:
    case ValueType::kInt16: return 2;
    case ValueType::kUint32:
    case ValueType::kInt32:
    case ValueType::kFloat32: return 4;
    case ValueType::kUint64:
    case ValueType::kInt64:
    case ValueType::kFloat64:
    case ValueType::kString: return 8;
    case ValueType::kArray: return 12;
  }
  return 1;
}

class Parser {
 public:
  explicit Parser(std::span<const std::byte> bytes) : bytes_(bytes), reader_(bytes) {}
  Result<GgufTables> parse();

 private:
  void read_header();
  void read_entry();
  GgufValue read_scalar(ValueType type, std::string_view key);
  GgufArray read_array(std::string_view key);
  void read_alignment();
  void read_tensor();
  std::optional<uint64_t> data_bytes(const GgufTensor& tensor, uint32_t type);
  void place_tensors();
  void corrupt(const std::string& what) { reader_.fail(ErrorCode::kCorrupt, what); }
  void unsupported(const std::string& what) { reader_.fail(ErrorCode::kUnsupported, what); }

  std::span<const std::byte> bytes_;
  ByteReader reader_;
  GgufTables tables_;
  uint64_t tensor_count_ = 0, entry_count_ = 0, array_items_ = 0;
  uint64_t alignment_ = kAlignmentDefault;
  struct Placement {
    uint64_t offset, bytes;  // offset from the start of the tensor data
  };
  std::vector<Placement> placements_;  // one a tensor
};

Result<GgufTables> Parser::parse() {
  read_header();
  for (uint64_t index = 0; index < entry_count_ && !reader_.failed(); ++index) read_entry();
  read_alignment();
  for (uint64_t index = 0; index < tensor_count_ && !reader_.failed(); ++index) read_tensor();
  place_tensors();
  if (reader_.failed()) return tl::unexpected<Error>(reader_.error());
  return std::move(tables_);
}

void Parser::read_header() {
  if (reader_.read<uint32_t>() != kMagic) return corrupt("this is no GGUF file: its first four bytes are not \"GGUF\"");
  const auto version = reader_.read<uint32_t>();
  if (!reader_.failed() && version == __builtin_bswap32(kVersionMax))
    return unsupported("a big-endian GGUF file; supported are little-endian files");
  if (!reader_.failed() && (version < kVersionMin || version > kVersionMax))
    return unsupported(
        fmt::format("GGUF version {}; supported are versions {} and {}", version, kVersionMin, kVersionMax));
  tensor_count_ = reader_.read<uint64_t>();
  entry_count_ = reader_.read<uint64_t>();
  if (tensor_count_ > kEntriesMax || tensor_count_ > reader_.left() / kTensorBytesMin)
    corrupt(fmt::format("{} tensors in {} bytes; at most {} are accepted", tensor_count_, reader_.left(), kEntriesMax));
  if (entry_count_ > kEntriesMax || entry_count_ > reader_.left() / kEntryBytesMin)
    corrupt(fmt::format("{} metadata entries in {} bytes; at most {} are accepted", entry_count_, reader_.left(),
                        kEntriesMax));
}

void Parser::read_entry() {
  std::string key = reader_.read_string("metadata key", kKeyBytesMax);
  const auto type = reader_.read<uint32_t>();
  if (reader_.failed()) return;
  if (key.empty()) return corrupt("a metadata key is empty");
  if (type >= kValueTypesEnd)
    return corrupt(
        fmt::format("metadata key {} has value type {}, which GGUF does not know", quote_foreign(key), type));
  const auto value_type = static_cast<ValueType>(type);
  GgufValue value = value_type == ValueType::kArray ? GgufValue(read_array(key)) : read_scalar(value_type, key);
  if (reader_.failed()) return;
  const auto [place, is_new] = tables_.metadata.emplace(std::move(key), std::move(value));
  if (!is_new) corrupt(fmt::format("metadata key {} is there twice", quote_foreign(place->first)));
}

// One value as the widest of its kind.
GgufValue Parser::read_scalar(ValueType type, std::string_view key) {
  switch (type) {
    case ValueType::kUint8: return uint64_t{reader_.read<uint8_t>()};
    case ValueType::kInt8: return int64_t{reader_.read<int8_t>()};
    case ValueType::kUint16: return uint64_t{reader_.read<uint16_t>()};
    case ValueType::kInt16: return int64_t{reader_.read<int16_t>()};
    case ValueType::kUint32: return uint64_t{reader_.read<uint32_t>()};
    case ValueType::kInt32: return int64_t{reader_.read<int32_t>()};
    case ValueType::kFloat32: return double{reader_.read<float>()};
    case ValueType::kUint64: return reader_.read<uint64_t>();
    case ValueType::kInt64: return reader_.read<int64_t>();
    case ValueType::kFloat64: return reader_.read<double>();
    case ValueType::kString: return reader_.read_string("metadata string", kStringBytesMax);
    case ValueType::kBool: {
      const auto flag = reader_.read<uint8_t>();
      if (flag > 1) corrupt(fmt::format("metadata key {}: a boolean is stored as {}", quote_foreign(key), flag));
      return flag == 1;
    }
    case ValueType::kArray: break;  // the callers read arrays
  }
  unsupported(fmt::format("metadata key {} holds an array of arrays", quote_foreign(key)));
  return false;
}

GgufArray Parser::read_array(std::string_view key) {
  const auto raw_type = reader_.read<uint32_t>();
  const auto count = reader_.read<uint64_t>();
  if (reader_.failed()) return {};
  if (raw_type >= kValueTypesEnd) {
    corrupt(
        fmt::format("metadata key {}: array items of type {}, which GGUF does not know", quote_foreign(key), raw_type));
    return {};
  }
  const auto type = static_cast<ValueType>(raw_type);
  if (count > kArrayItemsMax - array_items_ || count > reader_.left() / item_bytes_min(type)) {
    corrupt(
        fmt::format("metadata key {}: an array of {} items; {} bytes are left in the file and at most {} items are "
                    "accepted in all arrays together",
                    quote_foreign(key), count, reader_.left(), kArrayItemsMax));
    return {};
  }
  array_items_ += count;
  const auto read_all = [&](auto items, auto convert) -> GgufArray {
    items.reserve(count);
    for (uint64_t index = 0; index < count && !reader_.failed(); ++index)
      items.push_back(convert(read_scalar(type, key)));
    return items;
  };
  if (type == ValueType::kString)
    return read_all(std::vector<std::string>{},
                    [](GgufValue value) { return std::move(std::get<std::string>(value)); });
  if (type == ValueType::kFloat32 || type == ValueType::kFloat64)
    return read_all(std::vector<double>{}, [](const GgufValue& value) { return std::get<double>(value); });
  return read_all(std::vector<int64_t>{}, [&](const GgufValue& value) -> int64_t {
    if (const auto* const flag = std::get_if<bool>(&value)) return *flag ? 1 : 0;
    if (const auto* const number = std::get_if<int64_t>(&value)) return *number;
    const uint64_t number = std::get<uint64_t>(value);
    if (!std::in_range<int64_t>(number))
      unsupported(fmt::format("metadata key {}: array item {} is above 2^63 - 1", quote_foreign(key), number));
    return static_cast<int64_t>(number);
  });
}

void Parser::read_alignment() {
  const auto entry = tables_.metadata.find("general.alignment");
  if (entry == tables_.metadata.end()) return;
  const auto* const value = std::get_if<uint64_t>(&entry->second);
  if (value == nullptr) return corrupt("general.alignment is no unsigned integer");
  if (!std::has_single_bit(*value) || *value < kAlignmentMin || *value > kAlignmentMax)
    return corrupt(fmt::format("general.alignment is {}; it must be a power of two from {} to {}", *value,
                               kAlignmentMin, kAlignmentMax));
  alignment_ = *value;
}

void Parser::read_tensor() {
  GgufTensor tensor;
  tensor.name = reader_.read_string("tensor name", kTensorNameBytesMax);
  const auto dimensions = reader_.read<uint32_t>();
  if (reader_.failed()) return;
  if (dimensions == 0 || dimensions > kDimensionsMax)
    return corrupt(fmt::format("tensor {} has {} dimensions; 1 to {} are possible", quote_foreign(tensor.name),
                               dimensions, kDimensionsMax));
  for (uint32_t axis = 0; axis < dimensions; ++axis) tensor.shape.push_back(reader_.read<uint64_t>());
  const auto type = reader_.read<uint32_t>();
  const auto offset = reader_.read<uint64_t>();
  if (reader_.failed()) return;
  const std::optional<uint64_t> length = data_bytes(tensor, type);
  if (!length) return;
  tensor.type = static_cast<GgufType>(type);
  placements_.push_back({offset, *length});
  if (!tables_.tensor_index.emplace(tensor.name, tables_.tensors.size()).second)
    return corrupt(fmt::format("tensor {} is there twice", quote_foreign(tensor.name)));
  tables_.tensors.push_back(std::move(tensor));
}

// Bytes of a tensor's data; nullopt, with the reader failed, when type and shape cannot be.
std::optional<uint64_t> Parser::data_bytes(const GgufTensor& tensor, uint32_t type) {
  const GgufTypeInfo* const info = gguf_type_info(type);
  if (info == nullptr || !info->supported()) {
    unsupported(fmt::format("tensor {} has type {} ({}); supported are {}", quote_foreign(tensor.name), type,
                            info != nullptr ? info->name : "unknown", supported_gguf_types()));
    return std::nullopt;
  }
  if (tensor.shape[0] % info->block_values != 0) {
    corrupt(fmt::format("tensor {} of type {}: rows of {} values do not divide into blocks of {}",
                        quote_foreign(tensor.name), info->name, tensor.shape[0], info->block_values));
    return std::nullopt;
  }
  uint64_t blocks = tensor.shape[0] / info->block_values, length = 0;
  bool possible = blocks > 0;
  for (size_t axis = 1; axis < tensor.shape.size(); ++axis)
    possible = possible && tensor.shape[axis] > 0 && !__builtin_mul_overflow(blocks, tensor.shape[axis], &blocks);
  if (!possible || __builtin_mul_overflow(blocks, uint64_t{info->block_bytes}, &length) || length > bytes_.size()) {
    corrupt(fmt::format("tensor {} of type {} and shape [{}] cannot be in a file of {} bytes",
                        quote_foreign(tensor.name), info->name, fmt::join(tensor.shape, ", "), bytes_.size()));
    return std::nullopt;
  }
  return length;
}

// Turns offsets into spans, once the end of the tables and with it the start of the data is known.
void Parser::place_tensors() {
  if (reader_.failed()) return;
  const uint64_t data_begin = (uint64_t{reader_.position()} + alignment_ - 1) / alignment_ * alignment_;
  std::vector<size_t> by_offset;
  for (size_t index = 0; index < tables_.tensors.size(); ++index) {
    GgufTensor& tensor = tables_.tensors[index];
    const Placement& place = placements_[index];
    if (place.offset % alignment_ != 0)
      return corrupt(fmt::format("tensor {} lies at offset {}, which is no multiple of the alignment {}",
                                 quote_foreign(tensor.name), place.offset, alignment_));
    uint64_t begin = 0, end = 0;
    if (__builtin_add_overflow(data_begin, place.offset, &begin) || __builtin_add_overflow(begin, place.bytes, &end) ||
        end > bytes_.size())
      return corrupt(
          fmt::format("tensor {} needs {} bytes from offset {} of the data, which begins at byte {}; the file "
                      "has {} bytes: it is truncated or damaged, fetch it again",
                      quote_foreign(tensor.name), place.bytes, place.offset, data_begin, bytes_.size()));
    tensor.bytes = bytes_.subspan(begin, place.bytes);
    by_offset.push_back(index);
  }
  std::ranges::sort(by_offset, {}, [&](size_t index) { return placements_[index].offset; });
  for (size_t rank = 1; rank < by_offset.size(); ++rank) {
    const Placement& before = placements_[by_offset[rank - 1]];
    if (before.offset + before.bytes > placements_[by_offset[rank]].offset)
      return corrupt(fmt::format("tensors {} and {} overlap", quote_foreign(tables_.tensors[by_offset[rank - 1]].name),
                                 quote_foreign(tables_.tensors[by_offset[rank]].name)));
  }
}

}  // namespace

Result<GgufTables> parse_gguf(std::span<const std::byte> bytes) { return Parser(bytes).parse(); }

}  // namespace spillway
