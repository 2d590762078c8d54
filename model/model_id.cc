#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <bit>
#include <memory>
#include <span>

#include "common/check.h"
#include "model/model_config.h"

namespace spillway {
namespace {

struct FreeDigest {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new()) {
    CHECK(context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
  }
  void add(std::span<const std::byte> bytes) {
    CHECK(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
  }
  void add(uint64_t value) {  // little-endian, whatever the host
    std::array<std::byte, 8> bytes{};
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(value >> (8 * i));
    add(bytes);
  }
  FileDigest finish() {
    FileDigest digest{};
    CHECK(EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()), nullptr) == 1);
    return digest;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, FreeDigest> context_;
};

}  // namespace

FileDigest digest_of(const GgufFile& file) {
  constexpr size_t kStep = size_t{4} << 20;
  Sha256 hash;
  for (std::span<const std::byte> left = file.bytes(); !left.empty();) {
    const std::span<const std::byte> part = left.first(std::min(left.size(), kStep));
    hash.add(part);
    file.release(part);
    left = left.subspan(part.size());
  }
  return hash.finish();
}

ModelId compute_model_id(const FileDigest& file, const ModelConfig& config, uint16_t block_tokens) {
  Sha256 hash;
  hash.add(file);
  for (const uint64_t value :
       {uint64_t{config.layer_count}, uint64_t{config.heads}, uint64_t{config.kv_heads}, uint64_t{config.head_dim},
        uint64_t{config.hidden}, uint64_t{config.feed_forward}, uint64_t{config.vocab}, uint64_t{config.context_max},
        uint64_t{config.sliding_window}, uint64_t{std::bit_cast<uint32_t>(config.rms_epsilon)},
        std::bit_cast<uint64_t>(config.rope.theta_base), std::bit_cast<uint64_t>(config.rope.position_scale),
        std::bit_cast<uint64_t>(config.rope.magnitude), uint64_t{config.rope.divisors.size()}, uint64_t{block_tokens},
        uint64_t{config.architecture.qkv_bias}, uint64_t{config.architecture.qk_norm},
        uint64_t{static_cast<uint8_t>(config.architecture.rope_order)}})
    hash.add(value);
  for (const float divisor : config.rope.divisors) hash.add(uint64_t{std::bit_cast<uint32_t>(divisor)});
  hash.add(std::as_bytes(std::span(config.architecture.name)));
  const FileDigest digest = hash.finish();
  ModelId id;
  std::copy_n(digest.begin(), id.bytes.size(), id.bytes.begin());
  return id;
}

}  // namespace spillway
