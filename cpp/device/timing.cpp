#include "device/timing.hpp"

#include <algorithm>
#include <cmath>
#include <memory>

namespace cwai {
namespace {

// What is timed together takes at least so many seconds: an event counts in steps of half a
// microsecond.
constexpr double kShortest = 2e-4;
constexpr std::size_t kMostTogether = 64;
// Samples of a batch: the host waits for the last of them only.
constexpr std::size_t kBatch = 8;

}  // namespace

std::vector<double> time_rounds(const Stream& stream, const TimingSpec& spec,
                                const std::function<void()>& post, const Watch& watch) {
  std::vector<std::unique_ptr<Event>> events;
  for (std::size_t i = 0; i <= kBatch; ++i) events.push_back(std::make_unique<Event>(stream.gpu()));
  const auto run = [&](std::size_t samples, std::size_t together) {
    post();
    events[0]->record(stream);
    for (std::size_t i = 1; i <= samples; ++i) {
      for (std::size_t k = 0; k < together; ++k) post();
      events[i]->record(stream);
    }
    stream.wait(watch);
  };

  run(1, 1);
  const double once = std::max(events[1]->since(*events[0]), 1e-7);
  const auto together = std::clamp<std::size_t>(
      static_cast<std::size_t>(std::ceil(kShortest / once)), 1, kMostTogether);
  // A quarter of the time at a time, so that slow work ends about when it should.
  const double sample = once * static_cast<double>(together);
  const auto batch = std::clamp<std::size_t>(
      static_cast<std::size_t>(seconds(spec.duration) / (4 * sample)), 1, kBatch);

  std::vector<double> samples;
  const Nanos end = now() + spec.duration;
  while (samples.size() < spec.most && (samples.size() < spec.least || now() < end)) {
    run(batch, together);
    for (std::size_t i = 1; i <= batch && samples.size() < spec.most; ++i)
      samples.push_back(events[i]->since(*events[i - 1]) / static_cast<double>(together));
  }
  return samples;
}

}  // namespace cwai
