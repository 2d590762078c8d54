#include <algorithm>
#include <cstring>
#include <iterator>
#include <vector>

#include "common/check.h"
#include "formats/gguf.h"
#include "gateway/served_model.h"
#include "model/model_config.h"
#include "tests/fuzz/fuzz_input.h"
#include "text/tokenizer.h"

namespace spillway {
namespace {

constexpr std::string_view kProbe = "Hello <|im_end|> w\xC3\xB6rld 12 \xF0\x9F\x98\x80";

void check_tensors(const GgufFile& file) {
  const std::byte* const begin = file.bytes().data();
  const std::byte* const end = begin + file.bytes().size();
  std::vector<std::span<const std::byte>> places;
  for (const GgufTensor& tensor : file.tensors()) {
    CHECK(tensor.bytes.data() >= begin && tensor.bytes.data() + tensor.bytes.size() <= end);
    const auto found = file.tensor(tensor.name);
    CHECK(found && *found == &tensor);
    if (!tensor.bytes.empty()) places.push_back(tensor.bytes);
  }
  std::ranges::sort(places, {}, [](const auto& place) { return place.data(); });
  for (size_t at = 1; at < places.size(); ++at)
    CHECK(places[at - 1].data() + places[at - 1].size() <= places[at].data());
}

void check_config(const GgufFile& file) {
  const auto config = read_model_config(file);
  if (!config) return;
  CHECK(config->layer_count > 0 && config->heads > 0 && config->kv_heads > 0 && config->head_dim > 0);
  CHECK(config->heads % config->kv_heads == 0 && config->head_dim % 2 == 0 && config->context_max > 0);
  CHECK(config->rope.theta_base > 0 && config->rms_epsilon >= 0 && config->kv_layout().block_bytes() > 0);
}

void check_text_side(const GgufFile& file) {
  const auto made = Tokenizer::from_gguf(file);
  if (!made) return;
  const Tokenizer& tokenizer = **made;
  CHECK(tokenizer.end_of_sequence() < tokenizer.vocab_size());
  CHECK(!tokenizer.begin_of_sequence() || *tokenizer.begin_of_sequence() < tokenizer.vocab_size());
  for (const TokenId token : tokenizer.end_of_generation()) CHECK(token < tokenizer.vocab_size());
  const auto tokens = tokenizer.encode(kProbe, SpecialTokens::kParse);
  CHECK(tokens.has_value());
  for (const TokenId token : *tokens) CHECK(token < tokenizer.vocab_size());
  ServedModel::Settings settings;
  settings.names = {"fuzzed"};
  settings.max_model_len = 4096;
  const auto served = ServedModel::from_gguf(file, tokenizer, std::move(settings));
  if (served && served->has_chat()) static_cast<void>(served->encode_chat({{"user", std::string(kProbe)}}, {}));
}

}  // namespace
}  // namespace spillway

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

// Half of the time one of the file's numbers (counts, lengths, offsets: 64 bits, mostly small) moves a little: plain
// mutation seldom makes a file whose parts still fit together but for one.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  if (seed % 2 == 0 || size < sizeof(uint64_t)) return LLVMFuzzerMutate(data, size, max_size);
  const size_t start = seed / 2 % (size - sizeof(uint64_t) + 1);
  for (size_t step = 0; step + sizeof(uint64_t) <= size; ++step) {
    uint8_t* const at = data + (start + step) % (size - sizeof(uint64_t) + 1);
    uint64_t number = 0;
    std::memcpy(&number, at, sizeof number);
    if (number == 0 || number > UINT16_MAX) continue;
    constexpr uint64_t kSteps[] = {1,  uint64_t{0} - 1,  8,   uint64_t{0} - 8,
                                   32, uint64_t{0} - 32, 256, uint64_t{1} << 61};
    number += kSteps[seed / 2 / size % std::size(kSteps)];
    std::memcpy(at, &number, sizeof number);
    return size;
  }
  return LLVMFuzzerMutate(data, size, max_size);
}

// A model file from anywhere. What opens has its tensors inside the file, apart from each other; its config, tokeniser
// and template are then sound or refused.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway;
  const auto bytes = input_bytes(data, size);
  const auto file = GgufFile::from_bytes({bytes.begin(), bytes.end()});
  if (!file) {
    CHECK(!file.error().detail.empty() && file.error().code != ErrorCode::kInternal);
    return 0;
  }
  check_tensors(*file);
  check_config(*file);
  check_text_side(*file);
  return 0;
}
