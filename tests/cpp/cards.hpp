// What the tests of the back ends of cards share: two processes, one point of a sweep, and every
// operation that a library can.
#pragma once

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "collective/data.hpp"
#include "collective/meeting.hpp"
#include "collective/sweep.hpp"
#include "runner.hpp"
#include "support/error.hpp"

namespace cwai_test {

using namespace cwai;

// Two processes that meet over a pair of sockets.
class Pair final : public Meeting {
 public:
  Pair(int rank, int fd) : rank_(rank), fd_(fd) {}

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return 2; }
  void barrier() override { exchange(0, 1 - rank_); }
  void largest(std::span<double> values) override {
    for (double& value : values) value = std::max(value, exchange(value, 1 - rank_));
  }
  void least(std::span<double> values) override {
    for (double& value : values) value = std::min(value, exchange(value, 1 - rank_));
  }
  void broadcast(std::span<std::byte> data, int root) override {
    if (rank_ == root) {
      put(data);
    } else {
      take(data);
    }
  }
  double exchange(double mine, int) override {
    double theirs = 0;
    put(std::as_bytes(std::span(&mine, 1)));
    take(std::as_writable_bytes(std::span(&theirs, 1)));
    return theirs;
  }

 private:
  void put(std::span<const std::byte> data) const {
    if (send(fd_, data.data(), data.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(data.size()))
      throw Error(Fault::kPeerClosed, "the other process");
  }
  void take(std::span<std::byte> data) const {
    if (recv(fd_, data.data(), data.size(), MSG_WAITALL) != static_cast<ssize_t>(data.size()))
      throw Error(Fault::kPeerClosed, "the other process");
  }

  int rank_, fd_;
};

using Side = std::function<void(Meeting&)>;

// ``second`` in a process of its own; gives its exit status: 0 where all its checks held.
inline int in_two_processes(const Side& first, const Side& second) {
  std::array<int, 2> fds{};
  CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, fds.data()), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(fds[0]);
    alarm(25);
    int failed = 1;
    try {
      Pair meeting(1, fds[1]);
      second(meeting);
      failed = 0;
    } catch (const std::exception& error) {
      std::cerr << "second process: " << error.what() << "\n";
    }
    _exit(failed);
  }
  close(fds[1]);
  Pair meeting(0, fds[0]);
  try {
    first(meeting);
  } catch (...) {
    close(fds[0]);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    throw;
  }
  close(fds[0]);
  int status = 0;
  CHECK_EQUAL(waitpid(child, &status, 0), child);
  return status;
}

// A variable of the fake library's, for the time of a test.
class Asked {
 public:
  Asked(const char* name, const std::string& value) : name_(name) {
    setenv(name, value.c_str(), 1);
  }
  ~Asked() { unsetenv(name_); }
  Asked(const Asked&) = delete;
  Asked& operator=(const Asked&) = delete;

 private:
  const char* name_;
};

constexpr Nanos kLong = 25 * kSecond;

inline PointSpec point(Operation operation = Operation::kAllReduce,
                       Element element = Element::kFloat32) {
  return {.operation = operation,
          .element = element,
          .reduction = Reduction::kSum,
          .root = 0,
          .in_place = false,
          .bytes = 4000,
          .iterations = 1,
          .least = 1,
          .most = 1,
          .limit = kSecond,
          .warmup = 0,
          .verify = true,
          .seed = 11,
          .isolated = false,
          .pipelined = false,
          .graph = false,
          .late = 0};
}

inline std::string said(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return std::string(fault_name(error.fault())) + " | " + error.subject() + " | " +
           error.vendor_code();
  }
  return "nothing";
}

inline bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

// One operation of all members; whether every element is right on those of this process.
inline void check_right(CollectiveBackend& backend, Shape shape, bool in_place) {
  constexpr std::size_t kBytes = 16384;
  const auto& buffers = backend.buffers(kBytes);
  const std::size_t unit = element_size(shape.element), members = backend.members().size();
  shape.size = backend.size();
  std::vector<Shape> shapes;
  std::vector<Uneven> uneven;
  std::vector<const std::byte*> send;
  std::vector<std::byte*> receive;
  for (std::size_t member = 0; member < members; ++member) {
    shape.rank = backend.members()[member];
    shapes.push_back(shape);
    uneven.push_back(shape.uneven());
    std::byte* const at = buffers.receive[member];
    std::byte* const to = in_place ? at + shape.send_offset() * unit : buffers.send[member];
    send.push_back(to);
    receive.push_back(in_place ? at + shape.receive_offset() * unit : at);
    std::vector<std::byte> data(shape.sent() * unit);
    Data(shape, 11).fill(0, shape.sent(), data.data());
    backend.fill(member, at, 0xFF, kBytes);
    backend.write(member, to, data);
  }
  backend.post({shape.operation, shape.element, shape.reduction, shape.root, shape.count, in_place,
                send, receive, uneven});
  backend.complete(Watch(kLong));
  for (std::size_t member = 0; member < members; ++member) {
    std::vector<std::byte> data(shapes[member].received() * unit);
    backend.read(member, data, receive[member]);
    const Mismatch found =
        Data(shapes[member], 11).check(0, shapes[member].received(), data.data());
    if (found.wrong == 0) continue;
    std::cerr << operation_name(shape.operation) << " " << element_name(shape.element) << " "
              << reduction_name(shape.reduction) << (in_place ? " in place" : "") << ": "
              << found.wrong << " wrong, first " << found.first_bad << "\n";
    CHECK(found.wrong == 0);
  }
}

// Every operation with every type and reduction that the library can; how many that were.
inline std::size_t everything(CollectiveBackend& backend) {
  std::size_t verified = 0;
  Shape shape{};
  shape.root = backend.size() - 1;
  shape.count = 150;
  for (std::size_t operation = 0; operation < kOperations; ++operation)
    for (std::size_t element = 0; element < kElements; ++element)
      for (std::size_t reduction = 0; reduction < kReductions; ++reduction)
        for (const bool in_place : {false, true}) {
          shape.operation = static_cast<Operation>(operation);
          shape.element = static_cast<Element>(element);
          shape.reduction = static_cast<Reduction>(reduction);
          if (reduction > 0 && !reduces(shape.operation)) continue;
          if (!backend.can(shape.operation, shape.element, shape.reduction, in_place)) continue;
          check_right(backend, shape, in_place);
          ++verified;
        }
  return verified;
}

}  // namespace cwai_test
