// SPDX-License-Identifier: GPL-2.0-only
// Flows found by key, in queues by age, and taken from a pool: a worker makes and forgets tens of
// thousands a second, and allocations and hashing were a third of what it did besides nDPI.
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <functional>
#include <vector>

#include "flow.hpp"

namespace l7mark {

// What an element of a FlowPool begins with.
template <class T>
struct PoolLinks {
  T* chain = nullptr;  // next of the same bucket; in the pool's free list: the next free one
  std::size_t hash = 0;
  T* older = nullptr;  // neighbours in the queue
  T* newer = nullptr;
};

// Elements linked through their PoolLinks, least recently used first. Owns none of them.
template <class T>
class PoolQueue {
 public:
  [[nodiscard]] bool empty() const { return oldest_ == nullptr; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] T& front() const { return *oldest_; }

  void push_back(T& element) {
    element.older = newest_;
    element.newer = nullptr;
    (newest_ != nullptr ? newest_->newer : oldest_) = &element;
    newest_ = &element;
    ++size_;
  }
  void remove(T& element) {
    (element.older != nullptr ? element.older->newer : oldest_) = element.newer;
    (element.newer != nullptr ? element.newer->older : newest_) = element.older;
    --size_;
  }

 private:
  T* oldest_ = nullptr;
  T* newest_ = nullptr;
  std::size_t size_ = 0;
};

// T derives from PoolLinks<T>, and has `FlowKey key` and `void reset()`, which gives back what an
// element holds. Pointers stay good until the element is erased. Memory of erased elements is kept
// for the next.
template <class T>
class FlowPool {
 public:
  [[nodiscard]] std::size_t size() const { return size_; }

  [[nodiscard]] T* find(const FlowKey& key) const {
    if (buckets_.empty()) return nullptr;
    const std::size_t hash = std::hash<FlowKey>()(key);
    for (T* at = buckets_[hash & (buckets_.size() - 1)]; at != nullptr; at = at->chain)
      if (at->hash == hash && at->key == key) return at;
    return nullptr;
  }

  // The key must not be there yet.
  T& insert(const FlowKey& key) {
    if (size_ >= buckets_.size()) grow();
    T* element = free_;
    if (element != nullptr)
      free_ = element->chain;
    else
      element = &elements_.emplace_back();
    element->key = key;
    element->hash = std::hash<FlowKey>()(key);
    link(*element);
    ++size_;
    return *element;
  }

  void erase(T& element) {
    T** at = &buckets_[element.hash & (buckets_.size() - 1)];
    while (*at != &element) at = &(*at)->chain;
    *at = element.chain;
    element.reset();
    element.chain = free_;
    free_ = &element;
    --size_;
  }

  // Gives back all memory, if nothing is held and there was room for `most` or more. True if so.
  bool release(std::size_t most) {
    if (size_ != 0 || elements_.size() < most) return false;
    std::deque<T>().swap(elements_);
    std::vector<T*>().swap(buckets_);
    free_ = nullptr;
    return true;
  }

 private:
  void link(T& element) {
    T*& bucket = buckets_[element.hash & (buckets_.size() - 1)];
    element.chain = bucket;
    bucket = &element;
  }

  void grow() {
    std::vector<T*> old(std::max<std::size_t>(buckets_.size() * 2, 1024), nullptr);
    old.swap(buckets_);
    for (T* element : old) {
      while (element != nullptr) {
        T* next = element->chain;
        link(*element);
        element = next;
      }
    }
  }

  std::vector<T*> buckets_;  // a power of two
  std::deque<T> elements_;   // in use and free
  T* free_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace l7mark
