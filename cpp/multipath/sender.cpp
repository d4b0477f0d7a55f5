#include "multipath/sender.hpp"

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "support/crc32c.hpp"
#include "support/error.hpp"

namespace cwai::multipath {
namespace {

// Answers that may come before they are read.
constexpr std::size_t kAnswers = 32;
constexpr Nanos kDialPatience = 2 * kSecond;
constexpr Nanos kLastWordPatience = 5 * kSecond;
constexpr std::size_t kSteps = 8192;

}  // namespace

Sender::Sender(const SenderSpec& spec, std::vector<std::unique_ptr<Connection>> connections,
               Dial dial)
    : End(std::move(connections), spec.waiting, kAnswers, std::move(dial), kDialPatience),
      spec_(spec),
      scheduler_(spec.scheduler, paths()),
      health_(paths(), PathHealth(spec.health)),
      payloads_(paths()),
      bye_(paths(), false),
      start_(now()),
      timelines_(paths()) {
  for (std::size_t i = 0; i < paths(); ++i) {
    if (alive(i))
      scheduler_.open(i, 1);
    else
      health_[i].fail(start_);
  }
}

// -------------------------------------------------------------------------------------- transfers

Sender::Transfer* Sender::find(std::uint64_t transfer) {
  const std::uint64_t index = transfer - first_;
  return index < transfers_.size() ? &transfers_[index] : nullptr;
}

std::uint64_t Sender::post(std::span<const std::byte> data, bool ours) {
  lend(data);
  transfers_.push_back({.data = data, .ours = ours});
  const std::uint64_t number = first_ + transfers_.size() - 1;
  start_what_is_ready();
  return number;
}

void Sender::start_what_is_ready() {
  for (auto ready = ready_.find(next_); ready != ready_.end(); ready = ready_.find(next_)) {
    Transfer* transfer = find(next_);
    if (transfer == nullptr) return;
    if (ready->second.bytes < transfer->data.size())
      throw Error(Fault::kDisagreed, "transfer " + std::to_string(next_) + ": " +
                                         std::to_string(transfer->data.size()) +
                                         " bytes, room for " + std::to_string(ready->second.bytes));
    scheduler_.add(transfer->data.size());
    transfer->begun = now();
    if (next_ == 0) start_ = transfer->begun;  // memory was lent before, which may take its time
    ready_.erase(ready);
    ++next_;
  }
}

std::optional<Sender::Room> Sender::room_for(std::uint64_t transfer) const {
  const auto found = ready_.find(transfer);
  return found == ready_.end() ? std::nullopt : std::optional(found->second);
}

bool Sender::done(std::uint64_t transfer) const {
  const std::uint64_t index = transfer - first_;
  if (transfer < first_) return true;
  return index < transfers_.size() && transfers_[index].complete && transfers_[index].reading == 0;
}

Nanos Sender::begun(std::uint64_t transfer) const {
  const std::uint64_t index = transfer - first_;
  return index < transfers_.size() ? transfers_[index].begun : 0;
}

std::size_t Sender::delivered(std::uint64_t transfer) const {
  return transfer < next_ ? scheduler_.delivered(transfer) : 0;
}

// All of it is there; paths that are late with their copy of a piece go on from a copy. Where that
// cannot be, a path that stalled is not waited for.
void Sender::complete(std::uint64_t number, Nanos at) {
  Transfer& transfer = *find(number);
  transfer.complete = true;
  if (transfer.reading == 0) take_back(transfer.data);
  for (std::size_t path = 0; path < paths(); ++path) {
    bool held = false;
    for (std::size_t i = 0; i < payloads_[path].size(); ++i) {
      Payload& payload = payloads_[path][i];
      if (payload.transfer != number || !payload.copy.empty()) continue;
      std::vector<std::byte> copy(payload.size);
      if (!redirect(path, Direction::kSend, payload.tag, copy)) {
        held = true;
        continue;
      }
      payload.copy = std::move(copy);
      let_go(transfer);
      lend(path, payload.copy);  // last: it may lose the path, and all that it holds
    }
    if (held && scheduler_.stalled(path)) {
      close(path);
      broken(path, Cause::kSilent, ETIMEDOUT, at);
    }
  }
}

// A payload of it is read no more.
void Sender::let_go(Transfer& transfer) {
  --transfer.reading;
  if (transfer.complete && transfer.reading == 0) take_back(transfer.data);
}

void Sender::forget_payloads(std::size_t path) {
  for (const Payload& payload : payloads_[path])
    if (Transfer* transfer = find(payload.transfer); transfer != nullptr && payload.copy.empty())
      let_go(*transfer);
  payloads_[path].clear();
}

void Sender::sent(std::size_t path, std::uint64_t tag) {
  auto& payloads = payloads_[path];
  const auto found = std::find_if(payloads.begin(), payloads.end(),
                                  [&](const Payload& payload) { return payload.tag == tag; });
  if (found == payloads.end()) return;
  if (!found->copy.empty())
    take_back(path, found->copy);
  else if (Transfer* transfer = find(found->transfer); transfer != nullptr)
    let_go(*transfer);
  payloads.erase(found);
}

// ------------------------------------------------------------------------------------------ paths

void Sender::change(std::size_t path, PathState before, Cause cause, int code, Nanos at) {
  scheduler_.open(path, alive(path) ? health_[path].share() : 0);
  if (health_[path].state() != before) note({at, path, health_[path].state(), cause, code});
}

void Sender::mark(std::size_t path, Nanos at, std::uint64_t bytes) {
  auto index = static_cast<std::size_t>((at - start_) / step_);
  if (index >= kSteps) {  // twice as coarse, so that it stays as long as it is
    for (auto& timeline : timelines_) {
      for (std::size_t i = 0; i < timeline.size(); ++i) {
        const std::uint64_t both = timeline[i];
        timeline[i] = 0;
        timeline[i / 2] += both;
      }
      timeline.resize((timeline.size() + 1) / 2);
    }
    step_ *= 2;
    mark(path, at, bytes);
    return;
  }
  auto& timeline = timelines_[path];
  if (timeline.size() <= index) timeline.resize(index + 1);
  timeline[index] += bytes;
}

void Sender::heard(std::size_t path, const Header& header, Nanos at) {
  const PathState before = health_[path].state();
  switch (header.kind) {
    case Kind::kDelivered: {
      const std::uint64_t so_far = scheduler_.counts(path).delivered;
      scheduler_.deliver(path, header.run, at);
      if (const std::uint64_t more = scheduler_.counts(path).delivered - so_far; more > 0)
        mark(path, at, more);
      health_[path].deliver(at);
      change(path, before, Cause::kDelivered, 0, at);
      Transfer* transfer = find(header.run.transfer);
      if (transfer != nullptr && transfer->begun != 0 && !transfer->complete &&
          scheduler_.done(header.run.transfer))
        complete(header.run.transfer, at);
      break;
    }
    case Kind::kBroken:
      scheduler_.reject(path, header.run, at);
      note({at, path, before, Cause::kCorrupt, 0});
      break;
    case Kind::kReady:
      if (header.run.transfer >= next_) ready_[header.run.transfer] = {header.total, header.tag};
      start_what_is_ready();
      break;
    case Kind::kPong:
      health_[path].answer(at);
      change(path, before, Cause::kAnswered, 0, at);
      if (health_[path].state() == PathState::kProbing) say(path, {.kind = Kind::kPing});
      break;
    case Kind::kBye:
      bye_[path] = true;
      break;
    case Kind::kData:
    case Kind::kPing:
      break;  // of a receiving end, they mean nothing
  }
}

void Sender::broken(std::size_t path, Cause cause, int code, Nanos at) {
  if (finishing_) {  // the other end may have heard the last word and gone, or not
    forget_payloads(path);
    redials_ = ask(path);
    return;
  }
  const PathState before = health_[path].state();
  forget_payloads(path);
  scheduler_.lose(path);
  health_[path].fail(at);
  change(path, before, cause, code, at);
  if (!spec_.resend) throw Error(Fault::kTransfer, "path " + std::to_string(path), code);
}

void Sender::joined(std::size_t path, Nanos at) {
  if (finishing_) {
    say(path, {.kind = Kind::kBye});
    return;
  }
  const PathState before = health_[path].state();
  health_[path].connect(at);
  change(path, before, Cause::kConnected, 0, at);
  say(path, {.kind = Kind::kPing});
}

void Sender::refused(std::size_t path, int code, Nanos at) {
  if (finishing_) {
    if (code == ECONNREFUSED) bye_[path] = true;  // nobody is there any more
    return;
  }
  note({at, path, PathState::kFailed, Cause::kRefused, code});
  health_[path].fail(at);
}

// ------------------------------------------------------------------------------------------- work

void Sender::act(Nanos at) {
  scheduler_.look(at);
  for (std::size_t path = 0; path < paths(); ++path) {
    PathHealth& health = health_[path];
    const PathState before = health.state();
    if (scheduler_.stalled(path)) {
      health.stall(at);
      change(path, before, Cause::kStalled, ETIMEDOUT, at);
      if (!spec_.resend) throw Error(Fault::kTransfer, "path " + std::to_string(path), ETIMEDOUT);
    }
    if (health.overdue(at)) {
      close(path);
      broken(path, Cause::kSilent, ETIMEDOUT, at);
    }
    if (health.dial(at)) {
      health.dialling();
      ask(path);
    }
  }
  fill(at);
  while (!transfers_.empty() && transfers_.front().complete && transfers_.front().reading == 0) {
    scheduler_.drop(first_);
    transfers_.pop_front();
    ++first_;
  }
}

// A run for each path in turn, so that a small transfer is spread as a large one is.
void Sender::fill(Nanos at) {
  for (bool some = true; some;) {
    some = false;
    for (std::size_t path = 0; path < paths(); ++path) {
      if (!room(path)) continue;
      const std::optional<Run> run = scheduler_.next(path, at);
      if (!run) continue;
      some = true;
      Transfer& transfer = *find(run->transfer);
      const std::size_t size = scheduler_.bytes(*run);
      const auto data = transfer.data.subspan(run->first * spec_.scheduler.block, size);
      const Header header{.kind = Kind::kData,
                          .run = *run,
                          .bytes = static_cast<std::uint32_t>(size),
                          .crc = transfer.ours ? crc32c(data.data(), size) : 0,
                          .checked = transfer.ours,
                          .total = transfer.data.size()};
      if (size == 0) {
        say(path, header);
        continue;
      }
      payloads_[path].push_back(
          {.tag = send(path, header, data), .transfer = run->transfer, .size = size});
      ++transfer.reading;
    }
  }
}

Nanos Sender::due() const {
  Nanos due = scheduler_.due();
  for (const PathHealth& health : health_) due = std::min(due, health.due());
  return due;
}

void Sender::wait(std::uint64_t transfer, const Watch& watch) {
  drive(
      watch, [&] { return done(transfer); },
      [&] {
        const Transfer* late = find(transfer);
        return "transfer " + std::to_string(transfer) + ": " + std::to_string(delivered(transfer)) +
               " of " + std::to_string(late == nullptr ? 0 : late->data.size()) + " bytes";
      });
}

void Sender::finish(const Watch& watch) {
  if (!transfers_.empty()) wait(first_ + transfers_.size() - 1, watch);
  finishing_ = true;
  for (std::size_t path = 0; path < paths(); ++path) say(path, {.kind = Kind::kBye});
  // One answer is enough: the other end has heard it. A path that is cut would never answer; and
  // where the answer is what was lost, nobody is there to say it again.
  const Nanos long_enough = now() + kLastWordPatience;
  const auto over = [&] {
    bool some = redials_;
    for (std::size_t path = 0; path < paths(); ++path) some = some || alive(path);
    return !some || now() >= long_enough || std::find(bye_.begin(), bye_.end(), true) != bye_.end();
  };
  drive(watch, over, [] { return "the last word"; });
}

}  // namespace cwai::multipath
