#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "kv/block.h"

namespace spillway {

enum class PinKind : uint8_t { kOwner, kReader, kWriter, kTierIo };
inline constexpr size_t kPinKinds = 4;

class SlotPool;

// A local hold on one slot. Moves only; releases when destroyed. Never leaves the loop thread.
class SlotPin {
 public:
  SlotPin() = default;
  SlotPin(SlotPin&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)), slot_(other.slot_), kind_(other.kind_) {}
  SlotPin& operator=(SlotPin&& other) noexcept;
  ~SlotPin() { release(); }
  SlotId slot() const { return slot_; }
  explicit operator bool() const { return pool_ != nullptr; }
  void release();  // an empty pin stays empty

 private:
  friend class SlotPool;
  SlotPin(SlotPool& pool, SlotId slot, PinKind kind) : pool_(&pool), slot_(slot), kind_(kind) {}
  SlotPool* pool_ = nullptr;
  SlotId slot_{};
  PinKind kind_{};
};

// Counts holds per slot of one arena, each kind apart. A slot is free when every count is zero and it is not cached.
// While it is open (held, not cached) it has at most one owner. Bookkeeping only: the memory belongs to engine/. Loop
// thread. Must outlive its pins. Every call is O(1) but check_conservation().
class SlotPool {
 public:
  explicit SlotPool(uint32_t slot_count);
  SlotPool(const SlotPool&) = delete;
  SlotPool& operator=(const SlotPool&) = delete;
  ~SlotPool();  // CHECKs that no pin is left

  std::optional<SlotPin> acquire();           // a free slot, held as kOwner; the one freed last comes first
  SlotPin pin(SlotId slot, PinKind kind);     // REQUIRES: the slot is held or cached; for kOwner: cached
  void set_cached(SlotId slot, bool cached);  // cached slots keep their bytes without a hold. REQUIRES held or cached
  bool is_cached(SlotId slot) const { return at(slot).cached; }
  bool is_held(SlotId slot) const { return at(slot).holds > 0; }  // any count above zero
  uint32_t count(SlotId slot, PinKind kind) const { return at(slot).counts[static_cast<size_t>(kind)]; }
  uint32_t slot_count() const { return static_cast<uint32_t>(slots_.size()); }
  uint32_t free_count() const { return static_cast<uint32_t>(free_.size()); }
  uint32_t held_count() const { return held_; }  // slots with any count above zero
  uint32_t cached_count() const { return cached_; }
  void check_conservation() const;  // free + held + only-cached == all; free list has no duplicate (CHECK)

 private:
  friend class SlotPin;
  struct Slot {
    std::array<uint32_t, kPinKinds> counts{};
    uint32_t holds = 0;  // sum of counts
    bool cached = false;
  };
  Slot& at(SlotId slot);
  const Slot& at(SlotId slot) const;
  void add_hold(SlotId slot, PinKind kind);
  void unpin(SlotId slot, PinKind kind);
  std::vector<Slot> slots_;
  std::vector<SlotId> free_;
  uint32_t held_ = 0, cached_ = 0;
};

}  // namespace spillway
