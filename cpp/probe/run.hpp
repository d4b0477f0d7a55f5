// What the measuring loops have in common: the ends agree on what they are about to do, and part in
// step.
#pragma once

#include <array>
#include <cstdint>
#include <exception>

#include "support/pattern.hpp"
#include "support/stop.hpp"
#include "transport/transport.hpp"

namespace cwai {

using Words = std::array<std::uint64_t, 8>;

/// Sends ``mine`` and returns what the other end sent; both ends call it at the same point. Travels
/// on lane 0, little-endian, under a CRC. Throws Error: kGarbled, and those of complete().
Words swap_words(Connection& connection, const Words& mine, const Watch& watch);

/// Waits for a completion. Throws Error: kPeerClosed or kTransfer (errno) when it failed,
/// kDeadline, kStopped.
Completion complete(Connection& connection, const Watch& watch);

/// Throws as complete() does when ``completion`` failed.
void expect_success(const Connection& connection, const Completion& completion);

/// Fences the connection when an error leaves the scope that posted buffers. Declare it after the
/// buffers: it goes before them, so that the other end cannot write into memory that is no longer
/// theirs. The connection is then good for nothing but to be closed.
class FenceOnError {
 public:
  explicit FenceOnError(Connection& connection) noexcept : connection_(connection) {}
  ~FenceOnError() {
    if (std::uncaught_exceptions() > before_) connection_.fence();
  }
  FenceOnError(const FenceOnError&) = delete;
  FenceOnError& operator=(const FenceOnError&) = delete;

 private:
  Connection& connection_;
  int before_ = std::uncaught_exceptions();
};

/// Throws Error(kDisagreed) naming ``what`` unless ``agreed``.
void expect_agreement(bool agreed, const char* what);

/// One message of seeded data each way that is asked for, on every lane, outside any timed part;
/// what was received is compared with what should have been. An index counts through the lanes:
/// lane · size + byte. Both ends must have the same ``seed``.
Mismatch verify(Connection& connection, std::size_t size, bool sends, bool receives,
                std::uint64_t seed, const Watch& watch);

/// The first byte of every timed message: is it one of the last?
constexpr std::byte kMore{0};
constexpr std::byte kLast{1};

}  // namespace cwai
