#include "multipath/receiver.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "support/crc32c.hpp"
#include "support/error.hpp"

namespace cwai::multipath {
namespace {

constexpr Nanos kAcceptPatience = 3600 * kSecond;
constexpr Nanos kPauseAfterRefusal = 100'000'000;
// A run is never longer; a header that says so is no header.
constexpr std::size_t kLongest = std::size_t{1} << 30;

}  // namespace

Receiver::Receiver(const ReceiverSpec& spec, std::vector<std::unique_ptr<Connection>> connections,
                   Dial dial)
    : End(std::move(connections), spec.waiting, 1, std::move(dial), kAcceptPatience),
      spec_(spec),
      landings_(paths()),
      ask_at_(paths(), 0),
      counts_(paths()) {
  if (spec.block == 0) throw Error(Fault::kInvalid, "block 0");
}

Receiver::Incoming* Receiver::find(std::uint64_t transfer) {
  const std::uint64_t index = transfer - first_;
  return index < incoming_.size() ? &incoming_[index] : nullptr;
}

std::uint64_t Receiver::post(std::span<std::byte> data, std::uint32_t tag, bool ours) {
  lend(data);
  incoming_.push_back({});
  incoming_.back().data = data;
  incoming_.back().tag = tag;
  incoming_.back().ours = ours;
  incoming_.back().pause = spec_.remind;
  announce(now());
  return first_ + incoming_.size() - 1;
}

bool Receiver::done(std::uint64_t transfer) const {
  if (transfer < first_) return true;
  const std::uint64_t index = transfer - first_;
  return index < incoming_.size() && incoming_[index].complete;
}

std::size_t Receiver::size(std::uint64_t transfer) const {
  if (done(transfer) && transfer >= first_) return incoming_[transfer - first_].total;
  const std::uint64_t back = first_ - transfer;
  if (transfer >= first_ || back > sizes_.size())
    throw Error(Fault::kInvalid, "transfer " + std::to_string(transfer));
  return sizes_[sizes_.size() - back];
}

// Until something of it has come, a buffer is announced again and again, over another path each
// time: the path that carried the first word may be dead.
void Receiver::announce(Nanos at) {
  for (std::size_t i = 0; i < incoming_.size(); ++i) {
    Incoming& incoming = incoming_[i];
    if (incoming.ledger || (incoming.told != 0 && at - incoming.told < incoming.pause)) continue;
    for (std::size_t k = 1; k <= paths(); ++k) {
      const std::size_t path = (told_last_ + k) % paths();
      if (!alive(path)) continue;
      // While all goes well the path that answered stays the one.
      if (incoming.told != 0 || !alive(told_last_)) told_last_ = path;
      if (incoming.told != 0)
        incoming.pause = std::min(2 * incoming.pause, ReceiverSpec::kLongestPause);
      Header header{.kind = Kind::kReady, .total = incoming.data.size(), .tag = incoming.tag};
      header.run.transfer = first_ + i;
      say(told_last_, header);
      incoming.told = at;
      break;
    }
  }
}

bool Receiver::fits(const Header& header) {
  if (header.bytes > kLongest || (header.bytes == 0) != (header.total == 0)) return false;
  if (header.run.transfer < first_) return true;  // late: it is thrown away
  Incoming* incoming = find(header.run.transfer);
  if (incoming == nullptr || header.total > incoming->data.size()) return false;
  if (!incoming->ledger) {
    incoming->total = header.total;
    const std::size_t blocks =
        std::max<std::size_t>((header.total + spec_.block - 1) / spec_.block, 1);
    incoming->ledger = std::make_unique<Ledger>(static_cast<std::uint32_t>(blocks), paths());
  }
  if (header.total != incoming->total || !incoming->ledger->covers(header.run)) return false;
  const std::size_t begin = header.run.first * spec_.block;
  const std::size_t end = std::min(begin + header.run.count * spec_.block, incoming->total);
  return end - begin == header.bytes;
}

bool Receiver::make_room(std::size_t path) {
  Landing& landing = landings_[path];
  if (landing.aside.size() >= landing.header.bytes) return true;
  take_back(path, landing.aside);
  landing.aside.resize(landing.header.bytes);
  lend(path, landing.aside);
  return alive(path);
}

void Receiver::heard(std::size_t path, const Header& header, Nanos at) {
  switch (header.kind) {
    case Kind::kData: {
      if (!fits(header)) {
        close(path);
        broken(path, Cause::kGarbled, EBADMSG, at);
        return;
      }
      Landing& landing = landings_[path];
      landing.header = header;
      landing.under_way = true;
      Incoming* incoming = find(header.run.transfer);
      landing.in_place = incoming != nullptr && claim(path, header.run, *incoming, at);
      if (landing.in_place) {
        landing.at = incoming->data.data() + header.run.first * spec_.block;
      } else {
        if (!make_room(path)) return;
        landing.at = landing.aside.data();
      }
      if (header.bytes == 0)
        landed(path, at);
      else
        receive(path, {landing.at, header.bytes});
      break;
    }
    case Kind::kPing:
      say(path, {.kind = Kind::kPong});
      break;
    case Kind::kBye:
      bye_ = path;
      say(path, {.kind = Kind::kBye});
      break;
    case Kind::kDelivered:
    case Kind::kBroken:
    case Kind::kReady:
    case Kind::kPong:
      break;  // of a sending end, they mean nothing
  }
}

// True: what the path brings goes where it belongs. Memory that we cannot write to is never copied
// to: there a rival goes at once, and what comes aside was all there before.
bool Receiver::claim(std::size_t path, const Run& run, Incoming& incoming, Nanos at) {
  Ledger& ledger = *incoming.ledger;
  if (incoming.ours) return ledger.claim(path, run);
  for (const std::size_t rival : ledger.rivals(path, run)) turn_aside(rival, ledger, at);
  return ledger.claim_over(path, run);
}

// Nothing more of what this path brings is written where it belongs.
void Receiver::turn_aside(std::size_t path, Ledger& ledger, Nanos at) {
  Landing& landing = landings_[path];
  if (!make_room(path)) return;
  if (redirect(path, Direction::kReceive, kPayload, {landing.aside.data(), landing.header.bytes})) {
    landing.at = landing.aside.data();
    landing.in_place = false;
    ledger.release(path);
    return;
  }
  close(path);
  broken(path, Cause::kStalled, ECANCELED, at);
}

void Receiver::landed(std::size_t path, Nanos at) {
  Landing& landing = landings_[path];
  const Header header = landing.header;
  landing.under_way = false;
  counts_[path].bytes += header.bytes;
  Header answer{.kind = Kind::kDelivered, .run = header.run};
  Incoming* incoming = find(header.run.transfer);
  const bool readable = !landing.in_place || incoming == nullptr || incoming->ours;
  const bool good = !header.checked || !readable || crc32c(landing.at, header.bytes) == header.crc;
  if (!good) {
    answer.kind = Kind::kBroken;
    ++counts_[path].corrupt;
    note({at, path, PathState::kHealthy, Cause::kCorrupt, 0});
    if (incoming != nullptr) incoming->ledger->release(path);
  } else if (incoming == nullptr) {
    counts_[path].twice += header.bytes;
  } else {
    Ledger& ledger = *incoming->ledger;
    if (!landing.in_place)
      for (const std::size_t rival : ledger.rivals(path, header.run)) turn_aside(rival, ledger, at);
    std::size_t fresh = 0;
    for (const Run& run : ledger.settle(path, header.run)) {
      const std::size_t begin = run.first * spec_.block;
      const std::size_t size = std::min(begin + run.count * spec_.block, incoming->total) - begin;
      fresh += size;
      if (!landing.in_place && size > 0)
        std::memcpy(incoming->data.data() + begin,
                    landing.at + (run.first - header.run.first) * spec_.block, size);
    }
    counts_[path].twice += header.bytes - fresh;
    incoming->complete = ledger.complete();
    if (incoming->complete) take_back(incoming->data);
  }
  say(path, answer);
}

void Receiver::broken(std::size_t path, Cause cause, int code, Nanos at) {
  Landing& landing = landings_[path];
  if (landing.under_way) {
    ++counts_[path].broken;
    Incoming* incoming = find(landing.header.run.transfer);
    if (incoming != nullptr && incoming->ledger) incoming->ledger->release(path);
    landing.under_way = false;
  }
  landing.aside = {};  // the next connection is not lent it
  if (!bye_) note({at, path, PathState::kFailed, cause, code});
}

void Receiver::joined(std::size_t path, Nanos at) {
  note({at, path, PathState::kProbing, Cause::kConnected, 0});
  ask_at_[path] = 0;
}

void Receiver::refused(std::size_t path, int code, Nanos at) {
  note({at, path, alive(path) ? PathState::kHealthy : PathState::kFailed, Cause::kRefused, code});
  ask_at_[path] = at + kPauseAfterRefusal;
}

void Receiver::act(Nanos at) {
  for (std::size_t path = 0; path < paths(); ++path)
    if (at >= ask_at_[path]) {
      ask_at_[path] = kNever;
      ask(path);
    }
  announce(at);
  while (!incoming_.empty() && incoming_.front().complete) {
    sizes_.push_back(incoming_.front().total);
    if (sizes_.size() > kSizes) sizes_.pop_front();
    incoming_.pop_front();
    ++first_;
  }
}

Nanos Receiver::due() const {
  Nanos due = kNever;
  for (const Nanos at : ask_at_) due = std::min(due, at);
  bool any = false;
  for (std::size_t path = 0; path < paths(); ++path) any = any || alive(path);
  if (any)  // else there is nobody to tell; joined() comes first
    for (const Incoming& incoming : incoming_)
      if (!incoming.ledger) due = std::min(due, incoming.told + incoming.pause);
  return due;
}

void Receiver::wait(std::uint64_t transfer, const Watch& watch) {
  drive(
      watch, [&] { return done(transfer); },
      [&] {
        const Incoming* late = find(transfer);
        const std::size_t blocks = late != nullptr && late->ledger ? late->ledger->count() : 0;
        return "transfer " + std::to_string(transfer) + ": " + std::to_string(blocks) +
               " blocks of " + std::to_string(spec_.block) + " bytes, of " +
               std::to_string(late == nullptr ? 0 : late->total) + " bytes";
      });
}

void Receiver::finish(const Watch& watch) {
  const auto gone = [&] {
    for (std::size_t path = 0; path < paths(); ++path)
      if (alive(path)) return false;
    return true;
  };
  drive(watch, [&] { return bye_ && (quiet(*bye_) || gone()); }, [] { return "the last word"; });
}

}  // namespace cwai::multipath
