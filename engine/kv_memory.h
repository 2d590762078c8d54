#pragma once

#include <cstdint>

#include "kernels/backend.h"
#include "kv/block.h"

namespace spillway {

// The memory of one process's KV blocks where its kernels compute: one arena of slots without header pages, allocated
// once from the Backend and as long-lived. Which slot holds what is KvCache's business. Immutable; the bytes of a slot
// belong to whoever the ledger says.
class KvMemory {
 public:
  // As many slots as `budget_bytes` hold (a request longer than all of them is the Engine's to refuse). Throws
  // SetupError with numbers and remedy when these are none, or when the backend has less memory.
  KvMemory(Backend& backend, const KvLayout& layout, uint64_t budget_bytes);
  const SlotArena& arena() const { return arena_; }

  static uint32_t slots_in(const KvLayout& layout, uint64_t budget_bytes);

 private:
  SlotArena arena_;
};

}  // namespace spillway
