#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <bit>
#include <memory>

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
  std::array<std::byte, 32> finish() {
    std::array<std::byte, 32> digest{};
    CHECK(EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()), nullptr) == 1);
    return digest;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, FreeDigest> context_;
};

}  // namespace

ModelId compute_model_id(const GgufFile& file, const ModelConfig& config, uint16_t block_tokens) {
  Sha256 hash;
  hash.add(file.bytes());
  for (const uint64_t value :
       {uint64_t{config.layer_count}, uint64_t{config.heads}, uint64_t{config.kv_heads}, uint64_t{config.head_dim},
        uint64_t{config.hidden}, uint64_t{config.feed_forward}, uint64_t{config.vocab}, uint64_t{config.context_max},
        uint64_t{std::bit_cast<uint32_t>(config.rms_epsilon)}, std::bit_cast<uint64_t>(config.rope_theta),
        uint64_t{block_tokens}})
    hash.add(value);
  const std::array<std::byte, 32> digest = hash.finish();
  ModelId id;
  std::copy_n(digest.begin(), id.bytes.size(), id.bytes.begin());
  return id;
}

}  // namespace spillway
