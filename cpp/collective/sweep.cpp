#include "collective/sweep.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <string>
#include <thread>

#include "collective/data.hpp"
#include "support/error.hpp"

namespace cwai {
namespace {

// Bytes that are written or compared at a time.
constexpr std::size_t kPart = 8 << 20;
// As many places in the buffers as the timed calls wander through.
constexpr std::size_t kPlaces = 64;
constexpr Nanos kBetweenLooks = kSecond / 4;

}  // namespace

// The calls of a point: one for each place in the buffers, with the pointers that it shows to.
struct Sweep::Laid {
  std::vector<Shape> shapes;  // of each member of this process
  std::vector<Uneven> uneven;
  struct Place {
    std::vector<const std::byte*> send;
    std::vector<std::byte*> receive;
  };
  std::vector<Place> places;
  std::vector<Call> calls;
};

// A point holds at least one element for each member, however few bytes it asks for; of alltoallv,
// three.
Sweep::Sweep(Meeting& meeting, CollectiveBackend& backend, std::size_t largest)
    : meeting_(meeting),
      backend_(backend),
      capacity_(
          std::max(largest, 3 * static_cast<std::size_t>(backend.size()) * sizeof(std::uint64_t))),
      buffers_(backend.buffers(capacity_)),
      clock_(clock_offset(meeting)) {}

// A process that left an operation on its own would leave the others waiting in it. So one that has
// to stop, or is late, says so here, and all leave together.
double Sweep::agree(double mine, const Watch& watch) {
  const auto flag = [](bool set) { return set ? 1.0 : 0.0; };
  std::array<double, 3> all{mine, flag(stop_requested()), flag(now() >= watch.deadline())};
  meeting_.largest(all);
  if (all[1] > 0) throw Error(Fault::kStopped, "");
  if (all[2] > 0) throw Error(Fault::kDeadline, "");
  return all[0];
}

Sweep::Laid Sweep::lay(const PointSpec& spec, std::size_t count) const {
  Laid laid;
  const std::size_t unit = element_size(spec.element);
  for (const int rank : backend_.members()) {
    laid.shapes.push_back(
        {spec.operation, spec.element, spec.reduction, spec.root, rank, backend_.size(), count});
    if (spec.operation == Operation::kAllToAllV) laid.uneven.push_back(laid.shapes.back().uneven());
  }
  // Every member must wander alike, so what each would need does not count.
  const std::size_t bytes = count * laid.shapes.front().blocks() * unit;
  constexpr std::size_t kAlignment = 4096;
  const std::size_t step = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  const std::size_t places =
      backend_.rotates() ? std::clamp<std::size_t>(capacity_ / step, 1, kPlaces) : 1;
  laid.places.resize(places);
  laid.calls.reserve(places);
  for (std::size_t place = 0; place < places; ++place) {
    auto& [send, receive] = laid.places[place];
    for (std::size_t member = 0; member < laid.shapes.size(); ++member) {
      const Shape& shape = laid.shapes[member];
      std::byte* at = buffers_.receive[member] + place * step;
      const std::byte* from =
          spec.in_place ? at + shape.send_offset() * unit : buffers_.send[member] + place * step;
      send.push_back(from);
      receive.push_back(spec.in_place ? at + shape.receive_offset() * unit : at);
    }
    laid.calls.push_back({spec.operation, spec.element, spec.reduction, spec.root, count,
                          spec.in_place, send, receive, laid.uneven});
  }
  return laid;
}

std::vector<Mismatch> Sweep::verify(const PointSpec& spec, const Laid& laid, const Watch& watch) {
  const std::size_t unit = element_size(spec.element);
  const Call& call = laid.calls.front();
  std::vector<std::byte> part(std::min(kPart, (capacity_ + 7) / 8 * 8));
  std::vector<Data> data;
  for (std::size_t member = 0; member < laid.shapes.size(); ++member) {
    const Shape& shape = laid.shapes[member];
    data.emplace_back(shape, spec.seed);
    // 0xFF is what no element here holds, so what did not arrive cannot pass.
    backend_.fill(member, buffers_.receive[member], 0xFF,
                  std::min(capacity_, std::max(shape.sent(), shape.received()) * unit));
    const std::size_t sent = shape.sent(), step = part.size() / unit;
    // In place the send buffer is a part of the receive buffer: then it is no const one.
    std::byte* to = spec.in_place ? buffers_.receive[member] + shape.send_offset() * unit
                                  : buffers_.send[member];
    for (std::size_t first = 0; first < sent; first += step) {
      const std::size_t count = std::min(step, sent - first);
      data.back().fill(first, count, part.data());
      backend_.write(member, to + first * unit, std::span(part).first(count * unit));
    }
  }
  meeting_.barrier();  // writing takes long, and the deadline of a post must not run meanwhile
  backend_.post(call);
  backend_.complete(watch);
  std::vector<Mismatch> found;
  for (std::size_t member = 0; member < laid.shapes.size(); ++member) {
    const std::size_t received = laid.shapes[member].received(), step = part.size() / unit;
    Mismatch all;
    for (std::size_t first = 0; first < received; first += step) {
      const std::size_t count = std::min(step, received - first);
      backend_.read(member, std::span(part).first(count * unit),
                    call.receive[member] + first * unit);
      const Mismatch some = data[member].check(first, count, part.data());
      all.wrong += some.wrong;
      if (all.first_bad < 0) all.first_bad = some.first_bad;
    }
    found.push_back(all);
  }
  return found;
}

PointResult Sweep::measure(const PointSpec& spec, const Watch& watch) {
  const auto size = static_cast<std::size_t>(backend_.size());
  if (spec.root < 0 || static_cast<std::size_t>(spec.root) >= size)
    throw Error(Fault::kInvalid, "root=" + std::to_string(spec.root));
  if (!backend_.can(spec.operation, spec.element, spec.reduction, spec.in_place))
    throw Error(Fault::kUnsupported, backend_.library(), 0,
                std::string(operation_name(spec.operation)) + " " + element_name(spec.element) +
                    (reduces(spec.operation) ? std::string(" ") + reduction_name(spec.reduction)
                                             : std::string()) +
                    (spec.in_place ? " in place" : ""));
  Shape shape{spec.operation, spec.element, spec.reduction, spec.root, 0, backend_.size(), 0};
  const std::size_t unit = element_size(spec.element), blocks = shape.blocks();
  const std::size_t count = std::max<std::size_t>(1, spec.bytes / unit / blocks);
  const std::size_t bytes = count * blocks * unit;
  if (bytes > capacity_) throw Error(Fault::kInvalid, "bytes beyond the largest size");
  const Laid laid = lay(spec, count);

  PointResult result{.bytes = bytes, .count = count, .warmup = spec.warmup};
  ProgressOwner progress(operation_name(spec.operation), bytes);
  agree(0, watch);
  if (spec.verify) {
    progress.phase(Phase::kVerify);
    result.found = verify(spec, laid, watch);
  }

  progress.phase(Phase::kWarmup);
  Nanos warm = 0;
  for (std::uint64_t i = 0; i < spec.warmup; ++i) {
    meeting_.barrier();
    const Nanos start = now();
    backend_.post(laid.calls[i % laid.calls.size()]);
    backend_.complete(watch);
    const Nanos end = now();
    warm = i == 0 ? end - start : std::min(warm, end - start);
  }
  // All processes must do equally many: the slowest decides.
  const double each = std::max(agree(static_cast<double>(warm), watch), 100.0);
  const auto fitting = [each](Nanos time) {
    return static_cast<std::uint64_t>(static_cast<double>(time) / each);
  };
  const std::uint64_t iterations = spec.iterations > 0
                                       ? spec.iterations
                                       : std::clamp(fitting(spec.limit), spec.least, spec.most);

  progress.phase(Phase::kTimed);
  if (spec.isolated)
    isolated(spec, laid, iterations, std::max<std::uint64_t>(fitting(kBetweenLooks), 1), watch,
             progress, result);
  if (spec.pipelined || spec.graph) result.pipelined_iterations = iterations;
  const auto over_all = [&](auto&& post) {
    agree(0, watch);
    meeting_.barrier();
    const Nanos start = now();
    post();
    backend_.complete(watch);
    return seconds(now() - start) / static_cast<double>(iterations);
  };
  if (spec.pipelined) {
    result.pipelined = over_all([&] {
      for (std::uint64_t i = 0; i < iterations; ++i) {
        backend_.post(laid.calls[i % laid.calls.size()]);
        progress.iteration(iterations + i + 1);  // after those that were timed alone
      }
    });
  }
  if (spec.graph) {
    std::vector<Call> calls;
    calls.reserve(iterations);
    for (std::uint64_t i = 0; i < iterations; ++i)
      calls.push_back(laid.calls[i % laid.calls.size()]);
    if (backend_.capture(calls)) {
      backend_.replay();  // the first one loads it
      backend_.complete(watch);
      result.graphed = over_all([&] { backend_.replay(); });
    }
  }
  return result;
}

void Sweep::isolated(const PointSpec& spec, const Laid& laid, std::uint64_t iterations,
                     std::uint64_t stride, const Watch& watch, ProgressOwner& progress,
                     PointResult& result) {
  std::vector<double> ready(iterations), entered(iterations), posted_at(iterations);
  result.times.resize(iterations);
  result.posts.resize(iterations);
  backend_.marks(true);
  const bool queues = backend_.queues();
  Nanos came = now();
  for (std::uint64_t i = 0; i < iterations; ++i) {
    // Where nothing lies between, this process comes as it has completed the one before.
    if ((i > 0 && i % stride == 0) || spec.late > 0) {
      if (i > 0 && i % stride == 0) agree(0, watch);
      if (spec.late > 0) std::this_thread::sleep_for(std::chrono::nanoseconds(spec.late));
      came = now();
    }
    meeting_.barrier();
    const Nanos left = now();
    backend_.post(laid.calls[i % laid.calls.size()]);
    Nanos posted = queues ? now() : 0;
    backend_.complete(watch);
    const Nanos done = now();
    if (!queues) posted = done;
    ready[i] = seconds(came);
    entered[i] = seconds(left);
    posted_at[i] = seconds(posted);
    result.times[i] = seconds(done - left);
    result.posts[i] = seconds(posted - left);
    came = done;
    if (queues) {
      const std::span<const double> device = backend_.marked();
      if (i == 0) result.device.assign(device.size(), std::vector<double>(iterations));
      for (std::size_t member = 0; member < device.size(); ++member)
        result.device[member][i] = device[member];
    }
    progress.iteration(i + 1);
  }
  backend_.marks(false);
  compare_arrivals(ready, entered, posted_at, result);
}

void Sweep::compare_arrivals(const std::vector<double>& ready, const std::vector<double>& entered,
                             const std::vector<double>& posted, PointResult& result) {
  const auto after_first = [&](const std::vector<double>& mine) {
    std::vector<double> times(mine.size());
    std::transform(mine.begin(), mine.end(), times.begin(),
                   [this](double t) { return t + clock_.seconds; });
    std::vector<double> first = times;
    meeting_.least(first);
    for (std::size_t i = 0; i < times.size(); ++i) times[i] -= first[i];
    return times;
  };
  const std::vector<double> late = after_first(ready);
  if (result.device.empty()) {
    std::vector<double> all = after_first(entered);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] += late[i];
    result.lateness.assign(backend_.members().size(), all);
    return;
  }
  // Queued late, or begun late by the card: its mark may lie before what held it up, or after it.
  const std::vector<double> queued = after_first(posted);
  std::vector<double> longest(late.size(), 0.0);
  for (const std::vector<double>& member : result.device)
    for (std::size_t i = 0; i < member.size(); ++i) longest[i] = std::max(longest[i], member[i]);
  meeting_.largest(longest);
  for (const std::vector<double>& member : result.device) {
    std::vector<double> all = late;
    for (std::size_t i = 0; i < all.size(); ++i)
      all[i] += std::max(queued[i], longest[i] - member[i]);
    result.lateness.push_back(std::move(all));
  }
}

}  // namespace cwai
