#pragma once

#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "common/check.h"
#include "common/waker.h"

namespace spillway {

// Bounded queue into one thread; the only way across threads. Any thread pushes, the owner takes.
// The pusher holds a credit per item in flight and capacity covers all credits, so push() cannot find it full.
template <class T>
class Mailbox {
 public:
  Mailbox(size_t capacity, Waker& owner) : capacity_(capacity), owner_(owner) { CHECK(capacity > 0); }
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  // REQUIRES: the caller holds a credit. Wakes the owner.
  void push(T item) { CHECK(try_push(std::move(item))); }

  // For senders without credits (HTTP clients): false when full, the item is dropped.
  [[nodiscard]] bool try_push(T item) {
    {
      const std::lock_guard lock(mutex_);
      if (items_.size() >= capacity_) return false;
      items_.push_back(std::move(item));
    }
    owner_.wake();
    return true;
  }

  // Owner thread. Never blocks.
  std::optional<T> take() {
    std::optional<T> item;
    const std::lock_guard lock(mutex_);
    if (items_.empty()) return item;
    item.emplace(std::move(items_.front()));
    items_.pop_front();
    return item;
  }

  // Any thread: without an item, the owner has something else to look at.
  void wake() { owner_.wake(); }

  size_t capacity() const { return capacity_; }

 private:
  const size_t capacity_;
  Waker& owner_;
  std::mutex mutex_;
  std::deque<T> items_;
};

}  // namespace spillway
