#include "probe/milestones.hpp"

#include <span>

#include "support/error.hpp"

namespace cwai {

void Milestones::begin() { control_.post_receive(0, heard_, 0); }

void Milestones::reach(std::uint8_t milestone) {
  mine_ = milestone;
  const std::size_t at = milestone - 1U;
  told_.at(at) = std::byte{milestone};
  control_.post_send(0, std::span(told_).subspan(at, 1), 0);
  ++telling_;
}

void Milestones::listen(bool wait, const Watch& watch) {
  Completion done{};
  const std::size_t n =
      wait ? control_.wait({&done, 1}, watch.slice_end()) : control_.poll({&done, 1});
  if (n == 0) return;
  expect_success(control_, done);
  if (done.direction == Direction::kSend) {
    --telling_;
    return;
  }
  const auto milestone = std::to_integer<std::uint8_t>(heard_[0]);
  if (milestone != peer_ + 1) throw Error(Fault::kGarbled, control_.remote());
  peer_ = milestone;
  if (peer_ != last_) begin();
}

void Milestones::finish(const Watch& watch) {
  while (peer_ != last_ || telling_ > 0) {
    watch.check();
    listen(true, watch);
  }
}

}  // namespace cwai
