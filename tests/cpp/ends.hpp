// Both ends of a connection within a test.
#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "transport/loopback.hpp"
#include "transport/tcp.hpp"

namespace cwai_test {

using Ends = std::pair<std::unique_ptr<cwai::Connection>, std::unique_ptr<cwai::Connection>>;

inline cwai::Token token(unsigned char fill = 7) {
  cwai::Token value{};
  value.fill(std::byte{fill});
  return value;
}

/// Runs both, each on a thread of its own. The error of either is thrown, the first one's before
/// the second's.
inline void together(const std::function<void()>& first, const std::function<void()>& second) {
  std::exception_ptr failed;
  std::thread other([&] {
    try {
      second();
    } catch (...) {
      failed = std::current_exception();
    }
  });
  std::exception_ptr mine;
  try {
    first();
  } catch (...) {
    mine = std::current_exception();
  }
  other.join();
  if (mine) std::rethrow_exception(mine);
  if (failed) std::rethrow_exception(failed);
}

inline Ends tcp_pair(int lanes, cwai::Waiting waiting) {
  cwai::TcpListener listener("127.0.0.1", 0, 1);
  const cwai::Watch watch(5 * cwai::kSecond);
  Ends ends;
  together([&] { ends.first = listener.accept(token(), lanes, waiting, watch); },
           [&] {
             ends.second = cwai::tcp_connect("127.0.0.1", listener.port(), token(), lanes, waiting,
                                             "", watch);
           });
  return ends;
}

/// Calls ``body`` with a fresh pair of every kind: tcp and loopback, blocking and spinning, one
/// lane and three.
inline void on_every_transport(const std::function<void(Ends)>& body) {
  for (const cwai::Waiting waiting : {cwai::Waiting::kBlock, cwai::Waiting::kSpin})
    for (const int lanes : {1, 3}) {
      body(tcp_pair(lanes, waiting));
      body(cwai::memory_pair(lanes, waiting));
    }
}

/// Passes everything on, and flips one bit of the ``nth`` message that this end receives.
class CorruptingConnection final : public cwai::Connection {
 public:
  CorruptingConnection(cwai::Connection& inner, std::uint64_t nth, std::size_t at)
      : inner_(inner), nth_(nth), at_(at) {}

  void post_send(int lane, std::span<const std::byte> data, std::uint64_t tag) override {
    inner_.post_send(lane, data, tag);
  }
  void post_receive(int lane, std::span<std::byte> data, std::uint64_t tag) override {
    last_ = data;
    inner_.post_receive(lane, data, tag);
  }
  std::size_t poll(std::span<cwai::Completion> out) override {
    return corrupt(out, inner_.poll(out));
  }
  std::size_t wait(std::span<cwai::Completion> out, cwai::Nanos until) override {
    return corrupt(out, inner_.wait(out, until));
  }
  cwai::Nanos arm(std::vector<pollfd>& into) override { return inner_.arm(into); }
  void disarm() override { inner_.disarm(); }
  bool redirect(int lane, cwai::Direction direction, std::uint64_t tag,
                std::span<std::byte> instead) override {
    return inner_.redirect(lane, direction, tag, instead);
  }
  void fence() override { inner_.fence(); }
  void prepare(cwai::Goal goal) override { inner_.prepare(goal); }
  std::size_t useful_depth() const noexcept override { return 1; }
  int lanes() const noexcept override { return inner_.lanes(); }
  const char* transport() const noexcept override { return inner_.transport(); }
  std::string local() const override { return inner_.local(); }
  std::string remote() const override { return inner_.remote(); }

 private:
  std::size_t corrupt(std::span<cwai::Completion> out, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i)
      if (out[i].direction == cwai::Direction::kReceive && ++received_ == nth_)
        last_[at_] ^= std::byte{0x10};
    return n;
  }

  cwai::Connection& inner_;
  std::uint64_t nth_;
  std::size_t at_;
  std::uint64_t received_ = 0;
  std::span<std::byte> last_;
};

}  // namespace cwai_test
