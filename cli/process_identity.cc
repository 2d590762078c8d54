#include "cli/process_identity.h"

#include <sys/random.h>

#include "cli/value_or_throw.h"
#include "common/check.h"

namespace spillway {

BootId draw_boot_id() {
  uint64_t value = 0;
  CHECK(::getrandom(&value, sizeof value, 0) == static_cast<ssize_t>(sizeof value));
  return BootId{value};
}

Hello gateway_hello(const GgufFile& file, const FileDigest& digest, const std::string& name, BootId boot) {
  const ModelConfig config = value_or_throw(read_model_config(file));
  Hello hello;
  hello.role = Role::kGateway;
  hello.boot = boot;
  hello.name = name;
  hello.block_tokens = config.kv_layout().block_tokens;
  hello.model = compute_model_id(digest, config, config.kv_layout().block_tokens);
  return hello;
}

}  // namespace spillway
