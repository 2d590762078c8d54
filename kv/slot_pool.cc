#include "kv/slot_pool.h"

#include <limits>

#include "common/check.h"

namespace spillway {

SlotPin& SlotPin::operator=(SlotPin&& other) noexcept {
  if (this != &other) {
    release();
    pool_ = std::exchange(other.pool_, nullptr);
    slot_ = other.slot_;
    kind_ = other.kind_;
  }
  return *this;
}

void SlotPin::release() {
  if (SlotPool* const pool = std::exchange(pool_, nullptr)) pool->unpin(slot_, kind_);
}

SlotPool::SlotPool(uint32_t slot_count) : slots_(slot_count) {
  free_.reserve(slot_count);
  for (uint32_t slot = slot_count; slot > 0; --slot) free_.push_back(SlotId{slot - 1});  // slot 0 is handed out first
}

SlotPool::~SlotPool() { CHECK(held_ == 0); }

SlotPool::Slot& SlotPool::at(SlotId slot) {
  CHECK(static_cast<uint32_t>(slot) < slots_.size());
  return slots_[static_cast<uint32_t>(slot)];
}

const SlotPool::Slot& SlotPool::at(SlotId slot) const {
  CHECK(static_cast<uint32_t>(slot) < slots_.size());
  return slots_[static_cast<uint32_t>(slot)];
}

void SlotPool::add_hold(SlotId slot, PinKind kind) {
  Slot& held = at(slot);
  CHECK(held.holds < std::numeric_limits<uint32_t>::max());
  if (held.holds++ == 0) ++held_;
  ++held.counts[static_cast<size_t>(kind)];
}

std::optional<SlotPin> SlotPool::acquire() {
  if (free_.empty()) return std::nullopt;
  const SlotId slot = free_.back();
  free_.pop_back();
  add_hold(slot, PinKind::kOwner);
  return SlotPin(*this, slot, PinKind::kOwner);
}

SlotPin SlotPool::pin(SlotId slot, PinKind kind) {
  CHECK(is_held(slot) || is_cached(slot));
  CHECK(kind != PinKind::kOwner || is_cached(slot));
  add_hold(slot, kind);
  return SlotPin(*this, slot, kind);
}

void SlotPool::unpin(SlotId slot, PinKind kind) {
  Slot& held = at(slot);
  CHECK(held.counts[static_cast<size_t>(kind)] > 0);
  --held.counts[static_cast<size_t>(kind)];
  if (--held.holds > 0) return;
  --held_;
  if (!held.cached) free_.push_back(slot);
}

void SlotPool::set_cached(SlotId slot, bool cached) {
  Slot& target = at(slot);
  CHECK(target.holds > 0 || target.cached);
  if (target.cached == cached) return;
  target.cached = cached;
  cached_ += cached ? 1u : -1u;
  if (!cached && target.holds == 0) free_.push_back(slot);
}

void SlotPool::check_conservation() const {
  std::vector<bool> is_free(slots_.size());
  for (const SlotId slot : free_) {
    CHECK(!is_held(slot) && !is_cached(slot));
    CHECK(!is_free[static_cast<uint32_t>(slot)]);
    is_free[static_cast<uint32_t>(slot)] = true;
  }
  uint32_t held = 0, cached = 0, only_cached = 0;
  for (const Slot& slot : slots_) {
    uint32_t holds = 0;
    for (const uint32_t count : slot.counts) holds += count;
    CHECK(holds == slot.holds);
    held += holds > 0;
    cached += slot.cached;
    only_cached += slot.cached && holds == 0;
  }
  CHECK(held == held_ && cached == cached_);
  CHECK(free_.size() + held + only_cached == slots_.size());
}

}  // namespace spillway
