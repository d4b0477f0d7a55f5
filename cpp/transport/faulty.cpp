#include "transport/faulty.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "support/error.hpp"

namespace cwai {
namespace {

// How soon the end of a fault is noticed by somebody who sleeps.
constexpr Nanos kLook = 1'000'000;

class FaultyConnection final : public Connection {
 public:
  FaultyConnection(std::unique_ptr<Connection> inner, std::shared_ptr<Plant> plant)
      : inner_(std::move(inner)),
        plant_(std::move(plant)),
        lanes_(static_cast<std::size_t>(inner_->lanes())),
        last_(now()) {}

  void post_send(int lane, std::span<const std::byte> data, std::uint64_t tag) override {
    Lane& l = lanes_.at(static_cast<std::size_t>(lane));
    if (l.held.size() + l.under_way == kDepth) throw Error(Fault::kInvalid, "post");
    l.held.push_back({.data = data, .tag = tag, .left = static_cast<double>(data.size())});
  }
  void post_receive(int lane, std::span<std::byte> data, std::uint64_t tag) override {
    if (broken_)
      lanes_.at(static_cast<std::size_t>(lane)).refused.push_back(tag);
    else
      inner_->post_receive(lane, data, tag);
  }

  std::size_t poll(std::span<Completion> out) override {
    release();
    std::size_t n = 0;
    if (plant_->reset && !std::exchange(broken_, true)) inner_->fence();
    if (broken_)
      for (std::size_t i = 0; i < lanes_.size(); ++i) {
        Lane& lane = lanes_[i];
        const auto end = [&](std::uint64_t tag, Direction direction) {
          out[n++] = {.tag = tag,
                      .bytes = 0,
                      .time = now(),
                      .status = ECONNRESET,
                      .lane = static_cast<int>(i),
                      .direction = direction};
        };
        for (; n < out.size() && !lane.held.empty(); lane.held.pop_front())
          end(lane.held.front().tag, Direction::kSend);
        for (; n < out.size() && !lane.refused.empty(); lane.refused.pop_front())
          end(lane.refused.front(), Direction::kReceive);
      }
    const std::size_t mine = n;
    n += inner_->poll(out.subspan(n));
    for (std::size_t i = mine; i < n; ++i) {
      if (broken_ && out[i].status != 0) out[i].status = ECONNRESET;
      if (out[i].direction == Direction::kReceive) continue;
      Lane& lane = lanes_[static_cast<std::size_t>(out[i].lane)];
      --lane.under_way;
      std::erase_if(lane.spoilt, [&](const Spoilt& one) {
        if (one.tag != out[i].tag) return false;
        inner_->take_back(one.data);
        return true;
      });
    }
    return n;
  }

  std::size_t wait(std::span<Completion> out, Nanos until) override {
    for (;;) {
      if (const std::size_t n = poll(out); n > 0) return n;
      std::vector<pollfd> fds;
      const Nanos wake = std::min(arm(fds), until);
      const std::size_t n = poll(out);
      const Nanos left = std::clamp<Nanos>(wake - now(), 0, kSlice);
      if (n == 0) ::poll(fds.data(), fds.size(), static_cast<int>((left + 999'999) / 1'000'000));
      disarm();
      if (n > 0 || now() >= until) return n;
    }
  }

  Nanos arm(std::vector<pollfd>& into) override {
    const Nanos wake = inner_->arm(into);
    Nanos mine = kNever;
    const double rate = plant_->rate;
    for (const Lane& lane : lanes_) {
      if (lane.held.empty()) continue;
      const Nanos need = rate > 0 && !plant_->cut ? nanos(lane.held.front().left / rate) : kLook;
      mine = std::min(mine, now() + std::min(need, 10 * kLook));
    }
    return std::min(wake, mine);
  }
  void disarm() override { inner_->disarm(); }

  bool redirect(int lane, Direction direction, std::uint64_t tag,
                std::span<std::byte> instead) override {
    if (direction == Direction::kSend)
      for (Held& one : lanes_.at(static_cast<std::size_t>(lane)).held)
        if (one.tag == tag) {
          std::memcpy(instead.data(), one.data.data(), instead.size());
          one.data = instead;
          return true;
        }
    return inner_->redirect(lane, direction, tag, instead);
  }

  void lend(std::span<const std::byte> memory) override { inner_->lend(memory); }
  void take_back(std::span<const std::byte> memory) override { inner_->take_back(memory); }

  void fence() override { inner_->fence(); }
  void prepare(Goal goal) override { inner_->prepare(goal); }
  std::size_t useful_depth() const noexcept override { return inner_->useful_depth(); }
  int lanes() const noexcept override { return inner_->lanes(); }
  const char* transport() const noexcept override { return inner_->transport(); }
  std::string local() const override { return inner_->local(); }
  std::string remote() const override { return inner_->remote(); }

 private:
  struct Held {
    std::span<const std::byte> data;
    std::uint64_t tag;
    double left;  // bytes, until it has left
  };
  struct Spoilt {
    std::uint64_t tag;
    std::vector<std::byte> data;
  };
  struct Lane {
    std::deque<Held> held;
    std::size_t under_way = 0;
    std::vector<Spoilt> spoilt;
    std::deque<std::uint64_t> refused;  // posted for receiving when it was broken
  };

  // Passes on what has left by now. Lanes are as fast as each other.
  void release() {
    const Nanos at = now();
    const double rate = plant_->rate;
    double passed = seconds(at - std::exchange(last_, at)) * rate;
    if (plant_->cut || plant_->reset || broken_) return;
    for (std::size_t i = 0; i < lanes_.size(); ++i) {
      Lane& lane = lanes_[i];
      for (double left = passed; !lane.held.empty(); lane.held.pop_front()) {
        Held& front = lane.held.front();
        const double sent = rate > 0 ? std::min(left, front.left) : front.left;
        front.left -= sent;
        left -= sent;
        if (front.left > 0) break;
        pass_on(static_cast<int>(i), lane, front);
      }
    }
  }

  void pass_on(int index, Lane& lane, const Held& one) {
    std::span<const std::byte> data = one.data;
    if (data.size() > plant_->spared && plant_->corrupt > 0) {
      --plant_->corrupt;
      lane.spoilt.push_back({one.tag, {data.begin(), data.end()}});
      lane.spoilt.back().data[data.size() / 3] ^= std::byte{0x40};
      data = lane.spoilt.back().data;
      inner_->lend(data);
    }
    inner_->post_send(index, data, one.tag);
    ++lane.under_way;
  }

  std::unique_ptr<Connection> inner_;
  std::shared_ptr<Plant> plant_;
  std::vector<Lane> lanes_;
  Nanos last_;
  bool broken_ = false;
};

}  // namespace

std::unique_ptr<Connection> planted(std::unique_ptr<Connection> inner,
                                    std::shared_ptr<Plant> plant) {
  return std::make_unique<FaultyConnection>(std::move(inner), std::move(plant));
}

}  // namespace cwai
