// What NCCL calls a comm: one way from a sending to a receiving process, over all paths.
//
// A thread of its own drives each (multipath::Sender, multipath::Receiver): paths die and are made
// anew, and answers are given, whether or not NCCL calls at that moment. What NCCL calls only
// leaves an order for that thread, or looks at a flag; it never waits.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "multipath/receiver.hpp"
#include "multipath/sender.hpp"
#include "nccl_plugin/greeting.hpp"
#include "nccl_plugin/net_abi.hpp"
#include "nccl_plugin/settings.hpp"
#include "support/error.hpp"
#include "verbs/dma_bufs.hpp"

namespace cwai::nccl_net {

/// A path, for somebody who looks on.
struct PathStatus {
  std::string local, remote;            ///< Addresses.
  std::string local_name, remote_name;  ///< Of the interfaces; of RDMA ``mlx5_0:1``.
  bool rdma = false;
  multipath::PathState state = multipath::PathState::kFailed;
  std::optional<multipath::Cause> cause =
      {};                   ///< Why it is in that state; none while nothing happened.
  int code = 0;             ///< errno, or 0.
  Nanos at = 0;             ///< When it came to be in that state.
  std::uint64_t bytes = 0;  ///< Of a sending end: delivered; of a receiving one: that came.
  std::uint64_t lost = 0;   ///< Taken back from it, or that came broken or twice.
  std::uint32_t stalls = 0, failures = 0;
};

struct CommStatus {
  bool sends = false;
  std::string peer;
  Transport transport = Transport::kEither;  ///< In use; kEither until the ends have met.
  std::uint64_t transfers = 0, bytes = 0;    ///< That are complete.
  std::uint32_t outstanding = 0;
  std::string error;
  std::vector<PathStatus> paths;
};

class Comm;

/// One of NCCL's requests: a slot of its comm.
struct Request {
  enum State : std::uint8_t { kFree, kPending, kDone };
  Comm* comm = nullptr;
  std::atomic<State> state{kFree};
  std::size_t size = 0;
};

class Comm : public std::enable_shared_from_this<Comm> {
 public:
  virtual ~Comm() = default;
  Comm(const Comm&) = delete;
  Comm& operator=(const Comm&) = delete;

  /// To be called once it is owned by a shared_ptr.
  void start();
  /// At least one path has been there.
  bool connected() const noexcept { return connected_; }
  /// What every call returns from now on, if it failed; else kSuccess.
  Result failure() const noexcept { return failure_; }

  /// Sets ``done``, and ``size`` when it is; the request is free again then. Never waits.
  Result test(Request& request, int* done, int* size);

  /// Over RDMA alone: registers ``memory`` with the NICs of all paths, now and whenever one is made
  /// anew, until take_back(). Waits for the thread. Throws Error when a NIC refuses it.
  void lend(std::span<const std::byte> memory);
  /// The same of what is at ``offset`` of a dma-buf.
  void lend(std::span<const std::byte> memory, int dma_buf, std::uint64_t offset);
  void take_back(std::span<const std::byte> memory);
  bool over_rdma() const noexcept { return routes_.front().local.rdma(); }

  /// No buffer is touched any more when it returns. What is still to be said to the other end is
  /// said by the thread afterwards.
  void close();

  CommStatus status() const;

  /// Waits, no longer than ``patience``, until comms that were closed have said what they had to.
  static void wait_for_all(Nanos patience);

 protected:
  struct Order {
    std::span<std::byte> data;
    std::uint32_t tag;
    bool ours;  // memory of the host
    Request* request;
  };

  Comm(bool sends, std::string peer, const Settings& settings);

  /// On its own thread; throws Error when it cannot go on.
  virtual void work() = 0;

  /// What the ends have agreed on, `local` being of this one.
  void agreed(Agreement agreement);

  /// With mutex_ held: a free slot that is pending from now on, or null.
  Request* take();
  /// With mutex_ held.
  void order(const Order& order);

  template <typename End>
  void serve(End& end);

  const Settings& settings_;
  const std::string peer_;
  const std::shared_ptr<verbs::DmaBufs> dma_bufs_ = std::make_shared<verbs::DmaBufs>();
  mutable std::mutex mutex_;
  std::vector<Route> routes_;                  // before the thread serves
  std::deque<multipath::Sender::Room> rooms_;  // of the other end, for what comes next
  multipath::End* end_ = nullptr;              // while the thread serves
  std::atomic<bool> connected_{false};
  std::atomic<bool> given_up_{false};

 private:
  enum class Wish : std::uint8_t { kWork, kFinish, kAbort };

  // What lend() and take_back() leave for the thread, and wait for.
  struct Lending {
    std::span<const std::byte> memory;
    bool back;
    bool over = false;
    std::optional<Error> refused = std::nullopt;
  };
  void leave(Lending& lending);
  template <typename End>
  void settle(End& end, Lending& lending);

  void run() noexcept;
  void fail(Result result, const std::string& why);
  template <typename End>
  void drive(End& end);
  template <typename End>
  void note(const End& end, std::uint64_t& seen);
  template <typename End>
  void report(const End& end);
  std::string describe_paths() const;

  const bool sends_;
  Wish wish_ = Wish::kWork;
  bool ended_ = false;
  std::condition_variable answered_;  // a lending, or the thread has ended
  std::array<Request, 2 * kRequests> requests_;
  std::vector<Order> orders_;
  std::vector<Lending*> lendings_;
  std::atomic<Result> failure_{kSuccess};
  CommStatus status_;
};

class SendComm final : public Comm {
 public:
  /// ``rails``: of this process; they must stay.
  SendComm(Invitation invitation, const std::vector<Rail>& rails, const Settings& settings);

  /// ``ours``: memory of the host, not of a GPU. ``request`` is null when it is to be tried again:
  /// the other end has not posted a buffer with this tag as its next, or there are too many
  /// requests.
  Result isend(std::span<std::byte> data, std::uint32_t tag, bool ours, Request** request);

 private:
  void work() override;
  Greeting meet() const;
  std::unique_ptr<Connection> dial(std::size_t path, const Watch& watch) const;

  const Invitation invitation_;
  const std::vector<Rail>& rails_;
  Session session_{};
};

class RecvComm final : public Comm {
 public:
  RecvComm(std::string peer, Agreement agreement, const Settings& settings);

  Result irecv(std::span<std::byte> data, std::uint32_t tag, bool ours, Request** request);

  /// A connection of a path came; it is dropped when that is too late, or there is no such path.
  void join(std::size_t path, Socket socket);

 private:
  void work() override;
  void join_with_nic(std::size_t path, std::unique_ptr<Connection> control) noexcept;
  void offer(std::size_t path, std::unique_ptr<Connection> connection);

  std::unique_ptr<multipath::Receiver> receiver_;
};

}  // namespace cwai::nccl_net
