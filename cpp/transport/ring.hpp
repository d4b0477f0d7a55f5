// A queue of fixed size for one thread, without allocation.
#pragma once

#include <array>
#include <cstddef>

namespace cwai {

template <typename T, std::size_t kCapacity>
class Ring {
  static_assert((kCapacity & (kCapacity - 1)) == 0, "a power of two");

 public:
  bool empty() const noexcept { return head_ == tail_; }
  bool full() const noexcept { return tail_ - head_ == kCapacity; }
  std::size_t size() const noexcept { return tail_ - head_; }
  T& front() noexcept { return items_[head_ % kCapacity]; }
  /// The item ``i`` places behind the front.
  T& operator[](std::size_t i) noexcept { return items_[(head_ + i) % kCapacity]; }
  void push(const T& item) noexcept { items_[tail_++ % kCapacity] = item; }
  void pop() noexcept { ++head_; }

 private:
  std::array<T, kCapacity> items_{};
  std::size_t head_ = 0;
  std::size_t tail_ = 0;
};

}  // namespace cwai
