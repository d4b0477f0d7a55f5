#include "collective/startup.hpp"

#include <array>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "support/error.hpp"

namespace cwai {

void aside(std::function<void()> work, const std::function<void(Nanos)>& look) {
  struct State {
    std::mutex mutex;
    std::condition_variable ended;
    bool done = false;
    std::exception_ptr failed;
  };
  const auto state = std::make_shared<State>();
  std::thread([state, work = std::move(work)]() mutable {
    std::exception_ptr failed;
    try {
      work();
    } catch (...) {
      failed = std::current_exception();
    }
    work = nullptr;  // what it holds is let go before anyone goes on
    const std::lock_guard lock(state->mutex);
    state->failed = std::move(failed);
    state->done = true;
    state->ended.notify_one();
  }).detach();
  std::unique_lock lock(state->mutex);
  while (!state->done) {
    look(now());
    state->ended.wait_for(lock, std::chrono::milliseconds(10));
  }
  if (const std::exception_ptr failed = std::exchange(state->failed, nullptr))
    std::rethrow_exception(failed);
}

void together(Meeting& meeting, const std::string& library, const std::function<void()>& mine) {
  std::exception_ptr failed;
  try {
    mine();
  } catch (...) {
    failed = std::current_exception();
  }
  std::array<double, 1> any{failed ? 1.0 : 0.0};
  meeting.largest(any);
  if (failed) std::rethrow_exception(failed);
  if (any[0] > 0) throw Error(Fault::kCollective, library, 0, "another process could not start it");
}

Ranks ranks_of(Meeting& meeting, std::size_t mine) {
  std::vector<double> cards(static_cast<std::size_t>(meeting.size()));
  cards[static_cast<std::size_t>(meeting.rank())] = static_cast<double>(mine);
  meeting.largest(cards);
  return {
      static_cast<int>(std::accumulate(cards.begin(), cards.begin() + meeting.rank(), 0.0)),
      static_cast<int>(std::accumulate(cards.begin(), cards.end(), 0.0)),
  };
}

}  // namespace cwai
