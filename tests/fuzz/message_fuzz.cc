#include "common/check.h"
#include "tests/fuzz/fuzz_input.h"
#include "transfer/message_codec.h"

// What a peer sends. Whatever decodes is within every bound the encoder asks for, and encodes to bytes that decode to
// an equal message; the decoder reads nothing outside the bytes, at any alignment.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway;
  const auto decoded = decode_message(input_bytes(data, size));
  if (!decoded) {
    CHECK(decoded.error().code == ErrorCode::kCorrupt && !decoded.error().detail.empty());
    return 0;
  }
  const std::vector<std::byte> encoded = encode_message(decoded->sender, decoded->message);
  const auto again = decode_message(encoded);
  CHECK(again && again->sender == decoded->sender && again->message == decoded->message);
  CHECK(encode_message(again->sender, again->message) == encoded);
  std::vector<std::byte> shifted(encoded.size() + 1);
  std::copy(encoded.begin(), encoded.end(), shifted.begin() + 1);
  const auto unaligned = decode_message(std::span<const std::byte>(shifted).subspan(1));
  CHECK(unaligned && unaligned->message == decoded->message);
  return 0;
}
