// What back ends of host memory have in common: buffers that the CPU reads, operations that are
// done when post() returns, no card that could tell a time.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "collective/backend.hpp"
#include "support/buffer.hpp"

namespace cwai {

class HostBackend : public CollectiveBackend {
 public:
  const Buffers& buffers(std::size_t bytes) override {
    if (memory_.empty() || bytes > memory_.front().size()) {
      memory_.clear();
      buffers_ = {};
      for (std::size_t member = 0; member < members().size(); ++member) {
        buffers_.send.push_back(memory_.emplace_back(bytes).data());
        buffers_.receive.push_back(memory_.emplace_back(bytes).data());
      }
    }
    return buffers_;
  }
  void write(std::size_t, std::byte* to, std::span<const std::byte> from) override {
    std::memcpy(to, from.data(), from.size());
  }
  void read(std::size_t, std::span<std::byte> to, const std::byte* from) override {
    std::memcpy(to.data(), from, to.size());
  }
  void fill(std::size_t, std::byte* to, std::uint8_t value, std::size_t bytes) override {
    std::memset(to, value, bytes);
  }
  bool rotates() const noexcept override { return false; }
  bool queues() const noexcept override { return false; }
  void complete(const Watch&) override {}
  void marks(bool) override {}
  std::span<const double> marked() override { return {}; }
  bool capture(std::span<const Call>) override { return false; }
  void replay() override {}
  bool broken() const noexcept override { return false; }

 private:
  std::vector<Buffer> memory_;
  Buffers buffers_;
};

}  // namespace cwai
