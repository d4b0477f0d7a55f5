#include "multipath/end.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <optional>
#include <thread>
#include <utility>

#include "support/error.hpp"

namespace cwai::multipath {
namespace {

// Tags: of headers that come and that leave, by the number of their buffer; of payloads that leave,
// by a number that grows.
constexpr std::uint64_t kComing = std::uint64_t{1} << 61;
constexpr std::uint64_t kLeaving = std::uint64_t{1} << 60;

}  // namespace

const char* cause_name(Cause cause) noexcept {
  constexpr std::array<const char*, 9> kNames = {"connected", "answered", "delivered",
                                                 "stalled",   "silent",   "error",
                                                 "garbled",   "corrupt",  "refused"};
  return kNames[static_cast<std::size_t>(cause)];
}

// ---------------------------------------------------------------------------------------- dialler

Dialler::Dialler(Dial dial, std::size_t paths, Nanos patience)
    : dial_(std::move(dial)),
      patience_(patience),
      event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      threads_(paths) {
  if (event_ < 0) throw Error(Fault::kTransfer, "eventfd", errno);
}

Dialler::~Dialler() {
  given_up_ = true;
  for (std::thread& thread : threads_)
    if (thread.joinable()) thread.join();
  ::close(event_);
}

bool Dialler::ask(std::size_t path) {
  if (!dial_) return false;
  std::thread& thread = threads_[path];
  if (thread.joinable()) thread.join();  // it has answered, and is about to end
  thread = std::thread([this, path] {
    Answer answer{path, nullptr, 0};
    try {
      answer.connection = dial_(path, Watch(patience_, &given_up_));
    } catch (const Error& error) {
      answer.code = error.code() != 0 ? error.code() : ETIMEDOUT;
    }
    give(std::move(answer));
  });
  return true;
}

void Dialler::give(Answer answer) {
  {
    const std::lock_guard lock(mutex_);
    answers_.push_back(std::move(answer));
  }
  wake();
}

void Dialler::wake() noexcept {
  const std::uint64_t one = 1;
  (void)!::write(event_, &one, sizeof one);
}

std::optional<Dialler::Answer> Dialler::take() {
  const std::lock_guard lock(mutex_);
  if (answers_.empty()) return std::nullopt;
  Answer answer = std::move(answers_.front());
  answers_.pop_front();
  return answer;
}

void Dialler::quiet() noexcept {
  std::uint64_t count;
  (void)!::read(event_, &count, sizeof count);
}

std::vector<std::unique_ptr<Connection>> dial_all(std::size_t paths, const Dial& dial,
                                                  Nanos patience,
                                                  const std::atomic<bool>* given_up) {
  std::vector<std::unique_ptr<Connection>> connections(paths);
  std::vector<std::thread> threads;
  threads.reserve(paths);
  std::vector<std::optional<Error>> failed(paths);
  for (std::size_t i = 0; i < paths; ++i)
    threads.emplace_back([&, i] {
      try {
        connections[i] = dial(i, Watch(patience, given_up));
      } catch (const Error& error) {
        failed[i] = error;
      }
    });
  for (std::thread& thread : threads) thread.join();
  if (paths == 0) throw Error(Fault::kInvalid, "paths 0");
  std::optional<Error> first;
  std::size_t count = 0;
  for (const auto& error : failed) {
    if (!error) continue;
    if (error->fault() == Fault::kStopped || error->fault() == Fault::kInvalid ||
        error->fault() == Fault::kAddress)
      throw Error(*error);
    if (!first) first = error;
    ++count;
  }
  if (first && count == paths) throw Error(*first);
  return connections;
}

// -------------------------------------------------------------------------------------------- end

End::End(std::vector<std::unique_ptr<Connection>> connections, Waiting waiting, std::size_t headers,
         Dial dial, Nanos patience)
    : waiting_(waiting), dialler_(std::move(dial), connections.size(), patience) {
  if (connections.empty()) throw Error(Fault::kInvalid, "paths 0");
  for (auto& connection : connections) {
    auto path = std::make_unique<Path>();
    path->coming.resize(headers);
    path->connection = std::move(connection);
    if (path->connection) open(*path);
    paths_.push_back(std::move(path));
  }
}

void End::open(Path& path) {
  path.connection->prepare(Goal::kLatency);
  for (const auto& memory : lent_) path.connection->lend(memory);
  for (std::size_t i = 0; i < path.coming.size(); ++i)
    path.connection->post_receive(0, path.coming[i], kComing | i);
}

void End::note(const Event& event) {
  if (events_.size() == kEvents) events_.pop_front();
  events_.push_back(event);
  ++noted_;
}

bool End::room(std::size_t path) const {
  const Path& p = *paths_[path];
  return p.connection != nullptr && p.unsaid.empty() && p.sends + 2 <= Connection::kDepth;
}

bool End::quiet(std::size_t path) const {
  const Path& p = *paths_[path];
  return p.connection == nullptr || (p.unsaid.empty() && p.sends == 0);
}

void End::post_header(Path& path, const Header& header) {
  const auto slot = static_cast<std::size_t>(std::countr_zero(path.free));
  path.free &= path.free - 1;
  path.leaving[slot] = encode(header);
  path.connection->post_send(0, path.leaving[slot], kLeaving | slot);
  ++path.sends;
}

void End::say(std::size_t path, const Header& header) {
  Path& p = *paths_[path];
  if (p.connection == nullptr) return;
  p.unsaid.push_back(header);
  say_what_is_left(p);
}

void End::say_what_is_left(Path& path) {
  for (; !path.unsaid.empty() && path.sends < Connection::kDepth; path.unsaid.pop_front())
    post_header(path, path.unsaid.front());
}

std::uint64_t End::send(std::size_t path, const Header& header,
                        std::span<const std::byte> payload) {
  Path& p = *paths_[path];
  post_header(p, header);
  p.connection->post_send(0, payload, ++tags_);
  ++p.sends;
  return tags_;
}

void End::receive(std::size_t path, std::span<std::byte> payload) {
  paths_[path]->connection->post_receive(0, payload, kPayload);
}

bool End::redirect(std::size_t path, Direction direction, std::uint64_t tag,
                   std::span<std::byte> instead) {
  Path& p = *paths_[path];
  return p.connection != nullptr && p.connection->redirect(0, direction, tag, instead);
}

void End::lend(std::size_t path, std::span<const std::byte> memory) {
  if (!alive(path)) return;
  try {
    paths_[path]->connection->lend(memory);
  } catch (const Error& error) {
    if (error.code() != ENODEV && error.code() != EIO) throw;
    lose(path, Cause::kError, error.code(), now());
  }
}

void End::take_back(std::size_t path, std::span<const std::byte> memory) {
  if (alive(path)) paths_[path]->connection->take_back(memory);
}

void End::lend(std::span<const std::byte> memory) {
  if (memory.empty()) return;
  lent_.push_back(memory);
  try {
    for (std::size_t path = 0; path < paths_.size(); ++path) lend(path, memory);
  } catch (...) {
    take_back(memory);
    throw;
  }
}

void End::take_back(std::span<const std::byte> memory) {
  const auto found = std::find_if(lent_.begin(), lent_.end(), [&](const auto& lent) {
    return lent.data() == memory.data() && lent.size() == memory.size();
  });
  if (found == lent_.end()) return;
  lent_.erase(found);
  for (std::size_t path = 0; path < paths_.size(); ++path) take_back(path, memory);
}

void End::close(std::size_t path) {
  Path& p = *paths_[path];
  p.connection.reset();
  p.unsaid.clear();
  p.free = ~std::uint64_t{0};
  p.sends = 0;
  ++p.age;
}

void End::close_all() {
  for (std::size_t i = 0; i < paths_.size(); ++i) close(i);
}

void End::lose(std::size_t path, Cause cause, int code, Nanos at) {
  std::string ends;
  if (misconfigured(code))
    ends = paths_[path]->connection->local() + " - " + paths_[path]->connection->remote();
  close(path);
  broken(path, cause, code, at);
  if (misconfigured(code)) throw Error(Fault::kMisconfigured, ends, code);
}

bool End::handle(std::size_t path, const Completion& done) {
  Path& p = *paths_[path];
  const std::uint64_t age = p.age;
  if (done.direction == Direction::kSend) --p.sends;
  if (done.status != 0) {
    lose(path, Cause::kError, done.status, done.time);
    return false;
  }
  if (done.direction == Direction::kSend) {
    if ((done.tag & kLeaving) != 0)
      p.free |= std::uint64_t{1} << (done.tag & ~kLeaving);
    else
      sent(path, done.tag);
  } else if (done.tag == kPayload) {
    landed(path, done.time);
  } else {
    HeaderBytes& bytes = p.coming[done.tag & ~kComing];
    const std::optional<Header> header = decode(bytes);
    if (!header) {
      lose(path, Cause::kGarbled, EBADMSG, done.time);
      return false;
    }
    heard(path, *header, done.time);
    // Behind the payload, if it asked for one.
    if (p.age == age) p.connection->post_receive(0, bytes, done.tag);
  }
  if (p.age == age) say_what_is_left(p);
  return p.age == age;
}

bool End::pass(std::size_t path) {
  Path& p = *paths_[path];
  std::array<Completion, 2 * Connection::kDepth> done;
  bool some = false;
  while (p.connection != nullptr) {
    const std::size_t n = p.connection->poll(done);
    some = some || n > 0;
    for (std::size_t i = 0; i < n; ++i)
      if (!handle(path, done[i])) return true;
    if (n < 2) return some;  // a lane gives one of each direction at a time
  }
  return some;
}

bool End::pass() {
  bool some = false;
  for (std::size_t i = 0; i < paths_.size(); ++i) some = pass(i) || some;
  while (auto answer = dialler_.take()) {
    some = true;
    Path& p = *paths_[answer->path];
    if (answer->connection == nullptr) {
      refused(answer->path, answer->code, now());
      continue;
    }
    // The other end has a new one, so the old one is no more, whatever this end thought of it.
    if (p.connection != nullptr) lose(answer->path, Cause::kConnected, 0, now());
    p.connection = std::move(answer->connection);
    ++p.age;
    try {
      open(p);
    } catch (const Error& error) {  // its device went meanwhile
      close(answer->path);
      refused(answer->path, error.code(), now());
      continue;
    }
    joined(answer->path, now());
  }
  return some;
}

// What is to be said on what was heard leaves now: nobody may come here again for long.
void End::respond() {
  act(now());
  pass();
}

// What came is heard before silence is judged: this end may have been asleep for long itself.
void End::progress(Nanos until) {
  if (pass()) return respond();
  act(now());
  if (waiting_ == Waiting::kSpin) {
    constexpr int kTurns = 16;
    do {
      for (int turn = 0; turn < kTurns; ++turn)
        if (pass()) return respond();
    } while (now() < std::min(until, due()));
    return;
  }
  Nanos wake = std::min(until, due());
  if (wake <= now()) return;
  fds_.assign(1, {.fd = dialler_.fd(), .events = POLLIN, .revents = 0});
  for (const auto& path : paths_)
    if (path->connection != nullptr) wake = std::min(wake, path->connection->arm(fds_));
  const bool some = pass();  // what came before it was armed
  if (!some) {
    const Nanos left = std::clamp<Nanos>(wake - now(), 0, kSlice);
    const timespec time{.tv_sec = 0, .tv_nsec = left};
    ::ppoll(fds_.data(), fds_.size(), &time, nullptr);
  }
  if ((fds_.front().revents & POLLIN) != 0) dialler_.quiet();
  for (const auto& path : paths_)
    if (path->connection != nullptr) path->connection->disarm();
  if (some || pass()) respond();
}

}  // namespace cwai::multipath
