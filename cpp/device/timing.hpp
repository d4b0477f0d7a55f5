// How long a GPU takes for work, by its own clock.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "device/cuda.hpp"
#include "support/clock.hpp"
#include "support/stop.hpp"

namespace cwai {

struct TimingSpec {
  Nanos duration;            ///< Samples are taken for so long,
  std::size_t least = 5;     ///< but at least so many,
  std::size_t most = 10000;  ///< and at most so many.
};

/// Seconds that each round of what ``post`` queues on ``stream`` takes, by events before and after
/// it. Short rounds are timed several together, and enough is queued ahead that the GPU never
/// waits for the host. A first round, and one before each batch, is not counted. Throws kStopped,
/// kDeadline and what the work throws.
std::vector<double> time_rounds(const Stream& stream, const TimingSpec& spec,
                                const std::function<void()>& post, const Watch& watch);

}  // namespace cwai
