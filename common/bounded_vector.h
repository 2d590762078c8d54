#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "common/check.h"

namespace spillway {

// A vector that never grows past the capacity given at construction: exceeding it is a programmer error, because the
// pusher was to stop admitting before.
template <class T>
class BoundedVector {
 public:
  explicit BoundedVector(size_t capacity) : capacity_(capacity) { items_.reserve(capacity); }

  void push_back(T item) {
    CHECK(items_.size() < capacity_);
    items_.push_back(std::move(item));
  }
  void clear() { items_.clear(); }
  size_t size() const { return items_.size(); }
  size_t capacity() const { return capacity_; }
  size_t room() const { return capacity_ - items_.size(); }
  bool empty() const { return items_.empty(); }
  T& operator[](size_t index) { return items_[index]; }
  const T& operator[](size_t index) const { return items_[index]; }
  T* data() { return items_.data(); }
  const T* data() const { return items_.data(); }
  auto begin() { return items_.begin(); }
  auto end() { return items_.end(); }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }

 private:
  size_t capacity_;
  std::vector<T> items_;
};

}  // namespace spillway
