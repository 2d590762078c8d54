#include "model/architecture.h"

#include <algorithm>
#include <iterator>

namespace spillway {
namespace {

constexpr Architecture kArchitectures[] = {
    kLlama,
    {"qwen2", /*qkv_bias=*/true, /*qk_norm=*/false, RopeOrder::kHalves},  // also Qwen 2.5
    {"qwen3", /*qkv_bias=*/false, /*qk_norm=*/true, RopeOrder::kHalves},
};

}  // namespace

const Architecture* find_architecture(std::string_view name) {
  const auto* const found = std::ranges::find(kArchitectures, name, &Architecture::name);
  return found == std::end(kArchitectures) ? nullptr : found;
}

std::string architecture_names() {
  std::string names;
  for (const Architecture& architecture : kArchitectures) {
    if (!names.empty()) names += ", ";
    names += architecture.name;
  }
  return names;
}

}  // namespace spillway
