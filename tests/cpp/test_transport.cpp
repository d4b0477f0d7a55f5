#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "ends.hpp"
#include "runner.hpp"
#include "support/buffer.hpp"
#include "support/error.hpp"
#include "support/pattern.hpp"

using namespace cwai;
using namespace cwai_test;

namespace {

// Collects ``count`` completions, or fails the test after five seconds.
std::vector<Completion> collect(Connection& connection, std::size_t count) {
  std::vector<Completion> all;
  const Watch watch(5 * kSecond);
  std::array<Completion, 8> some;
  while (all.size() < count) {
    const std::size_t n = connection.wait(some, watch.slice_end());
    all.insert(all.end(), some.begin(), some.begin() + static_cast<std::ptrdiff_t>(n));
    watch.check();
  }
  return all;
}

// A plain socket to ``port``: somebody who does not speak our protocol.
Socket stranger(int port) {
  Socket socket(::socket(AF_INET, SOCK_STREAM, 0));
  CHECK(socket.fd() >= 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK_EQUAL(::connect(socket.fd(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  return socket;
}

}  // namespace

TEST(messages_arrive_whole_and_in_order_on_every_lane) {
  on_every_transport([](Ends ends) {
    constexpr std::size_t kSize = 300'000;
    constexpr std::size_t kMessages = 5;
    const auto lanes = static_cast<std::size_t>(ends.first->lanes());
    std::vector<Buffer> sent;
    std::vector<Buffer> got;
    for (std::size_t i = 0; i < lanes * kMessages; ++i) {
      sent.emplace_back(kSize);
      fill_pattern(sent.back().data(), kSize, i);
      got.emplace_back(kSize);
    }
    together(
        [&] {
          for (std::size_t i = 0; i < sent.size(); ++i)
            ends.first->post_send(static_cast<int>(i % lanes), {sent[i].data(), kSize}, i);
          for (const Completion& c : collect(*ends.first, sent.size())) {
            CHECK_EQUAL(c.status, 0);
            CHECK(c.direction == Direction::kSend);
          }
        },
        [&] {
          for (std::size_t i = 0; i < got.size(); ++i)
            ends.second->post_receive(static_cast<int>(i % lanes), {got[i].data(), kSize}, i);
          Nanos before = 0;
          std::vector<std::uint64_t> next(lanes);
          for (const Completion& c : collect(*ends.second, got.size())) {
            CHECK_EQUAL(c.status, 0);
            CHECK_EQUAL(c.bytes, kSize);
            CHECK(c.time >= before);
            before = c.time;
            const auto lane = static_cast<std::size_t>(c.lane);
            CHECK_EQUAL(c.tag, next[lane]++ * lanes + lane);
          }
        });
    for (std::size_t i = 0; i < got.size(); ++i)
      CHECK_EQUAL(check_pattern(got[i].data(), kSize, i).wrong, 0U);
  });
}

TEST(both_ends_may_send_large_messages_at_once) {
  on_every_transport([](Ends ends) {
    constexpr std::size_t kSize = 8 << 20;  // more than the buffers of a socket hold
    Buffer out_first(kSize), in_first(kSize), out_second(kSize), in_second(kSize);
    fill_pattern(out_first.data(), kSize, 1);
    fill_pattern(out_second.data(), kSize, 2);
    const auto swap = [](Connection& end, Buffer& out, Buffer& in) {
      end.post_receive(0, {in.data(), kSize}, 0);
      end.post_send(0, {out.data(), kSize}, 1);
      for (const Completion& c : collect(end, 2)) CHECK_EQUAL(c.status, 0);
    };
    together([&] { swap(*ends.first, out_first, in_first); },
             [&] { swap(*ends.second, out_second, in_second); });
    CHECK_EQUAL(check_pattern(in_first.data(), kSize, 2).wrong, 0U);
    CHECK_EQUAL(check_pattern(in_second.data(), kSize, 1).wrong, 0U);
  });
}

TEST(sends_that_never_stall_do_not_starve_a_receive) {
  on_every_transport([](Ends ends) {
    Buffer in(64), out(64), sink(64);
    ends.first->post_receive(0, {in.data(), 64}, 0);
    Completion completion;
    CHECK_EQUAL(ends.first->wait({&completion, 1}, now() + 1'000'000), 0U);  // nothing there yet
    ends.second->post_send(0, {out.data(), 64}, 0);
    bool received = false;
    for (int sent = 0; sent < 100 && !received; ++sent) {
      ends.second->post_receive(0, {sink.data(), 64}, 0);
      ends.first->post_send(0, {out.data(), 64}, 1);
      bool seen = false;
      std::thread other([&] {
        bool got = false;
        while (!got)
          for (const Completion& one : collect(*ends.second, 1))
            got = got || one.direction == Direction::kReceive;
      });
      while (!seen)
        for (const Completion& one : collect(*ends.first, 1)) {
          CHECK_EQUAL(one.status, 0);
          received = received || one.direction == Direction::kReceive;
          seen = seen || one.direction == Direction::kSend;
        }
      other.join();
    }
    CHECK(received);
  });
}

TEST(wait_returns_empty_handed_in_time) {
  on_every_transport([](Ends ends) {
    Buffer in(64);
    ends.first->post_receive(0, {in.data(), 64}, 0);
    Completion completion;
    const Nanos start = now();
    CHECK_EQUAL(ends.first->wait({&completion, 1}, start + 10'000'000), 0U);
    CHECK(now() - start < 5 * kSlice);
    CHECK_EQUAL(ends.first->poll({&completion, 1}), 0U);
  });
}

TEST(death_of_the_peer_completes_what_is_pending) {
  on_every_transport([](Ends ends) {
    Buffer in(64);
    ends.first->post_receive(0, {in.data(), 64}, 9);
    ends.second.reset();
    const Completion completion = collect(*ends.first, 1).front();
    CHECK_EQUAL(completion.status, ECONNRESET);
    CHECK_EQUAL(completion.tag, 9U);
  });
}

TEST(death_of_the_peer_ends_a_send_that_waits) {
  on_every_transport([](Ends ends) {
    constexpr std::size_t kSize = 64 << 20;
    Buffer out(kSize);
    ends.first->post_send(0, {out.data(), kSize}, 3);
    together([&] { CHECK_EQUAL(collect(*ends.first, 1).front().status, ECONNRESET); },
             [&] {
               usleep(20'000);
               ends.second.reset();
             });
  });
}

TEST(fence_revokes_every_buffer) {
  on_every_transport([](Ends ends) {
    Buffer in(4096), out(4096);
    fill_pattern(out.data(), 4096, 5);
    ends.first->post_receive(0, {in.data(), 4096}, 1);
    ends.first->fence();
    ends.second->post_send(0, {out.data(), 4096}, 2);
    Completion completion;
    ends.second->wait({&completion, 1}, now() + 20'000'000);
    CHECK_EQUAL(collect(*ends.first, 1).front().status, ECANCELED);
    for (std::size_t i = 0; i < 4096; ++i) CHECK(in.data()[i] == std::byte{0});
    CHECK_FAULT(ends.first->post_send(0, {out.data(), 4096}, 3), Fault::kInvalid);
  });
}

TEST(posting_beyond_the_depth_is_refused) {
  on_every_transport([](Ends ends) {
    Buffer in(8);
    for (std::size_t i = 0; i < Connection::kDepth; ++i)
      ends.first->post_receive(0, {in.data(), 8}, i);
    CHECK_FAULT(ends.first->post_receive(0, {in.data(), 8}, 99), Fault::kInvalid);
    CHECK_FAULT(ends.first->post_send(77, {in.data(), 8}, 0), Fault::kInvalid);
  });
}

TEST(memory_refuses_a_message_of_another_size) {
  auto [first, second] = memory_pair(1, Waiting::kBlock);
  Buffer in(8), out(16);
  first->post_receive(0, {in.data(), 8}, 0);
  second->post_send(0, {out.data(), 16}, 0);
  CHECK_EQUAL(collect(*first, 1).front().status, EMSGSIZE);
  CHECK_EQUAL(collect(*second, 1).front().status, EMSGSIZE);
}

TEST(listener_takes_the_next_port_when_one_is_taken) {
  const TcpListener first("127.0.0.1", 0, 1);
  const TcpListener second("127.0.0.1", first.port(), 50);
  CHECK(second.port() > first.port());
  CHECK(second.port() < first.port() + 50);
  CHECK_FAULT(TcpListener("127.0.0.1", first.port(), 1), Fault::kPortsTaken);
  CHECK_FAULT(TcpListener("192.0.2.77", 0, 1), Fault::kAddress);
  CHECK_FAULT(TcpListener("no-such-host", 0, 1), Fault::kAddress);
}

TEST(those_who_come_together_are_each_accepted_in_turn) {
  constexpr std::size_t kPeers = 8;
  TcpListener listener("127.0.0.1", 0, 1);
  const Watch watch(10 * kSecond);
  std::array<std::unique_ptr<Connection>, kPeers> dialled;
  std::array<std::unique_ptr<Connection>, kPeers> accepted;
  std::vector<std::jthread> threads;
  threads.reserve(kPeers);
  for (auto& one : dialled)
    threads.emplace_back([&] {
      try {
        one = tcp_connect("127.0.0.1", listener.port(), token(), 1, Waiting::kBlock, "", watch);
      } catch (const Error&) {
        one = nullptr;  // shown out: seen below
      }
    });
  usleep(200'000);  // all of them have said hello before the first is looked at
  for (auto& one : accepted) one = listener.accept(token(), 1, Waiting::kBlock, watch);
  threads.clear();
  for (std::size_t i = 0; i < kPeers; ++i) {
    CHECK(dialled[i] != nullptr);
    CHECK(accepted[i] != nullptr);
  }
  CHECK_EQUAL(listener.strangers().size(), std::size_t{0});
}

TEST(strangers_are_dropped_and_noted) {
  TcpListener listener("127.0.0.1", 0, 1);
  const Watch watch(10 * kSecond);
  std::unique_ptr<Connection> accepted;
  const Socket silent = stranger(listener.port());
  const Socket talker = stranger(listener.port());
  const std::string request =
      "GET / HTTP/1.1\r\nHost: cluster\r\nUser-Agent: a-curious-one/1.0\r\n\r\n";
  CHECK(::send(talker.fd(), request.data(), request.size(), 0) > 0);
  {
    const Socket hangs_up = stranger(listener.port());
  }
  together([&] { accepted = listener.accept(token(), 1, Waiting::kBlock, watch); },
           [&] {
             usleep(100'000);
             CHECK_FAULT(
                 tcp_connect("127.0.0.1", listener.port(), token(8), 1, Waiting::kBlock, "", watch),
                 Fault::kRejected);
             CHECK_FAULT(
                 tcp_connect("127.0.0.1", listener.port(), token(), 2, Waiting::kBlock, "", watch),
                 Fault::kRejected);
             usleep(2'200'000);  // longer than a greeting may take
             const auto ours =
                 tcp_connect("127.0.0.1", listener.port(), token(), 1, Waiting::kBlock, "", watch);
           });
  CHECK(accepted != nullptr);
  std::map<std::string, int> why;
  for (const Stranger& one : listener.strangers()) {
    CHECK_EQUAL(one.address, std::string("127.0.0.1"));
    ++why[one.why];
  }
  CHECK_EQUAL(why["magic"], 1);
  CHECK_EQUAL(why["closed"], 1);
  CHECK_EQUAL(why["token"], 1);
  CHECK_EQUAL(why["lane"], 2);  // both lanes of the one that came with two
  CHECK_EQUAL(why["silent"], 1);
}

TEST(accept_and_connect_give_up_in_time) {
  TcpListener listener("127.0.0.1", 0, 1);
  CHECK_FAULT(listener.accept(token(), 1, Waiting::kBlock, Watch(100'000'000)), Fault::kDeadline);
  // Nobody accepts: the greeting is never answered.
  CHECK_FAULT(tcp_connect("127.0.0.1", listener.port(), token(), 1, Waiting::kBlock, "",
                          Watch(100'000'000)),
              Fault::kDeadline);
  int port = 0;
  {
    const TcpListener gone("127.0.0.1", 0, 1);
    port = gone.port();
  }
  CHECK_FAULT(tcp_connect("127.0.0.1", port, token(), 1, Waiting::kBlock, "", Watch(kSecond)),
              Fault::kConnect);
}

TEST(somebody_else_who_listens_is_told_from_the_peer) {
  Socket server(::socket(AF_INET, SOCK_STREAM, 0));
  CHECK(server.fd() >= 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  CHECK_EQUAL(::bind(server.fd(), reinterpret_cast<sockaddr*>(&address), length), 0);
  CHECK_EQUAL(::listen(server.fd(), 1), 0);
  getsockname(server.fd(), reinterpret_cast<sockaddr*>(&address), &length);
  together(
      [&] {
        CHECK_FAULT(tcp_connect("127.0.0.1", ntohs(address.sin_port), token(), 1, Waiting::kBlock,
                                "", Watch(5 * kSecond)),
                    Fault::kRejected);
      },
      [&] {
        const Socket client(::accept(server.fd(), nullptr, nullptr));
        CHECK(client.fd() >= 0);
        const std::string banner = "SSH-2.0-SomebodyElse_1.0\r\n";
        CHECK(::send(client.fd(), banner.data(), banner.size(), MSG_NOSIGNAL) > 0);
        char hello[52];
        CHECK_EQUAL(::recv(client.fd(), hello, sizeof hello, MSG_WAITALL), 52);
      });
}

TEST(stop_ends_an_accept) {
  TcpListener listener("127.0.0.1", 0, 1);
  together(
      [&] {
        CHECK_FAULT(listener.accept(token(), 1, Waiting::kBlock, Watch(20 * kSecond)),
                    Fault::kStopped);
      },
      [] {
        usleep(50'000);
        request_stop();
      });
  clear_stop();
}
