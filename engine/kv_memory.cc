#include "engine/kv_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "common/check.h"

namespace spillway {

uint32_t KvMemory::slots_in(const KvLayout& layout, uint64_t budget_bytes) {
  constexpr uint64_t kSlotsMax = std::numeric_limits<uint32_t>::max();
  return static_cast<uint32_t>(std::min(budget_bytes / layout.block_bytes(), kSlotsMax));
}

KvMemory::KvMemory(Backend& backend, const KvLayout& layout, uint64_t budget_bytes) {
  const uint32_t slots = slots_in(layout, budget_bytes);
  if (slots == 0)
    throw SetupError(fmt::format(
        "KV memory of {} bytes holds no block: one block of {} tokens takes {} bytes; raise --device-memory",
        budget_bytes, layout.block_tokens, layout.block_bytes()));
  arena_ = {.base = backend.allocate(size_t{slots} * layout.block_bytes()).data(),
            .header_bytes = 0,
            .layout = layout,
            .slot_count = slots};
}

}  // namespace spillway
