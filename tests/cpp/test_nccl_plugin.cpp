// NCCL's net plugin: what it makes of the environment, of interfaces and of greetings; and its
// tables, driven as NCCL drives them, both ends in this process. tests/unit/test_net_plugin.py has
// two.
#include <dirent.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <iostream>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "device/cuda.hpp"
#include "ends.hpp"
#include "nccl_plugin/comm.hpp"
#include "nccl_plugin/greeting.hpp"
#include "nccl_plugin/net_abi.hpp"
#include "nccl_plugin/rails.hpp"
#include "nccl_plugin/settings.hpp"
#include "runner.hpp"
#include "support/error.hpp"
#include "with_fake_cuda.hpp"
#include "with_fake_verbs.hpp"

using namespace cwai;
using namespace cwai::nccl_net;
using namespace cwai_test;

extern "C" {
extern const Table8 ncclNetPlugin_v8;
extern const Table9 ncclNetPlugin_v9;
extern const Table10 ncclNetPlugin_v10;
extern const Table11 ncclNetPlugin_v11;
extern const Table12 ncclNetPlugin_v12;
}

namespace {

// --------------------------------------------------------------------------------- one for all
// tables

struct Calls {
  std::function<Result()> init = {};
  std::function<Result(void*, void**)> listen = {}, connect = {};
  std::function<Result(void*, void**)> accept = {};
  std::function<Result(void*, void*, std::size_t, int, void**)> isend = {}, irecv = {};
  RegMr reg_mr;
  DeregMr dereg_mr;
  Test test;
  Flush iflush;
  Close close_send, close_recv, close_listen;
};

template <typename Table>
Calls common(const Table& table) {
  return {.accept = [&](void* listening,
                        void** comm) { return table.accept(listening, comm, nullptr); },
          .reg_mr = table.reg_mr,
          .dereg_mr = table.dereg_mr,
          .test = table.test,
          .iflush = table.iflush,
          .close_send = table.close_send,
          .close_recv = table.close_recv,
          .close_listen = table.close_listen};
}

template <typename Table>
void without_context(Calls& calls, const Table& table) {
  calls.listen = [&](void* handle, void** comm) { return table.listen(0, handle, comm); };
}

template <typename Table>
void with_phandles(Calls& calls, const Table& table) {
  calls.isend = [&](void* comm, void* data, std::size_t size, int tag, void** request) {
    return table.isend(comm, data, size, tag, nullptr, nullptr, request);
  };
  calls.irecv = [&](void* comm, void* data, std::size_t size, int tag, void** request) {
    return table.irecv(comm, 1, &data, &size, &tag, nullptr, nullptr, request);
  };
}

template <typename Table>
Calls newest(const Table& table) {
  Calls calls = common(table);
  calls.init = [&] {
    void* context = nullptr;
    return table.init(&context, 1, nullptr, nullptr, nullptr);
  };
  calls.listen = [&](void* handle, void** comm) { return table.listen(nullptr, 0, handle, comm); };
  calls.connect = [&](void* handle, void** comm) {
    return table.connect(nullptr, 0, handle, comm, nullptr);
  };
  with_phandles(calls, table);
  return calls;
}

Calls calls_of(int version) {
  Calls calls;
  switch (version) {
    case 8: {
      const Table8& table = ncclNetPlugin_v8;
      calls = common(table);
      without_context(calls, table);
      calls.init = [&] { return table.init(nullptr); };
      calls.connect = [&](void* handle, void** comm) {
        return table.connect(0, handle, comm, nullptr);
      };
      calls.isend = [&](void* comm, void* data, std::size_t size, int tag, void** request) {
        return table.isend(comm, data, static_cast<int>(size), tag, nullptr, request);
      };
      calls.irecv = [&](void* comm, void* data, std::size_t size, int tag, void** request) {
        int less = static_cast<int>(size);
        return table.irecv(comm, 1, &data, &less, &tag, nullptr, request);
      };
      return calls;
    }
    case 9: {
      const Table9& table = ncclNetPlugin_v9;
      calls = common(table);
      without_context(calls, table);
      calls.init = [&] { return table.init(nullptr); };
      calls.connect = [&](void* handle, void** comm) {
        return table.connect(0, handle, comm, nullptr);
      };
      calls.isend = [&](void* comm, void* data, std::size_t size, int tag, void** request) {
        return table.isend(comm, data, size, tag, nullptr, request);
      };
      calls.irecv = [&](void* comm, void* data, std::size_t size, int tag, void** request) {
        return table.irecv(comm, 1, &data, &size, &tag, nullptr, request);
      };
      return calls;
    }
    case 10: {
      const Table10& table = ncclNetPlugin_v10;
      calls = common(table);
      without_context(calls, table);
      with_phandles(calls, table);
      calls.init = [&] { return table.init(nullptr, nullptr); };
      calls.connect = [&](void* handle, void** comm) {
        CommConfig config{-1};
        return table.connect(0, &config, handle, comm, nullptr);
      };
      return calls;
    }
    case 11:
      return newest(ncclNetPlugin_v11);
    default:
      return newest(ncclNetPlugin_v12);
  }
}

// Three paths over TCP, of which each can be told by its address.
void on_three_paths() {
  setenv("CWAI_NET_PATHS", "127.0.0.1,127.0.0.2,127.0.0.3", 1);
  setenv("CWAI_NET_TIMEOUT", "20", 1);
}

// Both devices of the fake libibverbs.
void on_two_nics() {
  on_three_paths();
  fake();
  setenv("CWAI_NET_TRANSPORT", "rdma", 1);
}

// Once their threads have gone, nothing is left with a NIC.
void all_is_let_go() {
  Comm::wait_for_all(20 * kSecond);
  nothing_is_left();
}

struct Pair {
  void* listening = nullptr;
  void* sends = nullptr;
  void* receives = nullptr;
};

constexpr Nanos kPatience = 25 * kSecond;

Pair meet(const Calls& calls) {
  Pair pair;
  std::array<std::byte, kHandleBytes> handle{};
  CHECK_EQUAL(calls.listen(handle.data(), &pair.listening), kSuccess);
  const Watch watch(kPatience);
  while (pair.sends == nullptr || pair.receives == nullptr) {
    watch.check();
    if (pair.sends == nullptr) CHECK_EQUAL(calls.connect(handle.data(), &pair.sends), kSuccess);
    if (pair.receives == nullptr)
      CHECK_EQUAL(calls.accept(pair.listening, &pair.receives), kSuccess);
    std::this_thread::yield();
  }
  return pair;
}

void part(const Calls& calls, const Pair& pair) {
  CHECK_EQUAL(calls.close_send(pair.sends), kSuccess);
  CHECK_EQUAL(calls.close_recv(pair.receives), kSuccess);
  CHECK_EQUAL(calls.close_listen(pair.listening), kSuccess);
}

// Ends a connection that is open in this process, as a broken network does: both its ends see it.
bool break_one(std::mt19937_64& random) {
  std::vector<int> open;
  DIR* const folder = opendir("/proc/self/fd");
  if (folder == nullptr) throw std::runtime_error("/proc/self/fd cannot be read");
  while (const dirent* entry = readdir(folder)) {
    const int fd = std::atoi(entry->d_name);
    sockaddr_storage peer{};
    socklen_t length = sizeof peer;
    if (fd > 2 && getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) == 0 &&
        peer.ss_family == AF_INET)
      open.push_back(fd);
  }
  closedir(folder);
  if (open.empty()) return false;
  // What it was may be closed by now: then there is nothing to break.
  return ::shutdown(open[random() % open.size()], SHUT_RDWR) == 0;
}

// Both queue pairs of all connections of a NIC.
bool break_a_nic(std::mt19937_64& random) {
  fake().force_errors(random() % 2);
  return true;
}

struct Message {
  std::vector<std::byte> data;
  int tag;
};

std::vector<Message> messages(std::uint64_t seed, std::size_t count, std::size_t largest) {
  std::mt19937_64 random(seed);
  std::vector<Message> all(count);
  for (Message& message : all) {
    const std::size_t sizes[] = {0, 1 + random() % 200, 1 + random() % 70'000,
                                 1 + random() % largest};
    message.data.resize(sizes[random() % 4]);
    for (std::byte& byte : message.data) byte = static_cast<std::byte>(random());
    message.tag = static_cast<int>(random() % 5);
  }
  return all;
}

// Everything of ``seed`` from one end to the other, with ``faults`` meanwhile; returns how many
// there were.
std::size_t transfer(const Calls& calls, const Pair& pair, std::uint64_t seed, std::size_t count,
                     std::size_t faults,
                     const std::function<bool(std::mt19937_64&)>& fault = break_one) {
  auto source = messages(seed, count, 400'000);
  std::vector<std::vector<std::byte>> target(count);
  struct Under {
    std::size_t index;
    void* request;
  };
  std::deque<Under> sending;
  std::deque<Under> receiving;
  std::size_t sent = 0;
  std::size_t posted = 0;
  std::size_t done = 0;
  std::size_t planted = 0;
  std::mt19937_64 random(seed);
  const Watch watch(kPatience);
  while (done < 2 * count) {
    watch.check();
    if (posted < count) {
      auto& into = target[posted];
      into.assign(source[posted].data.size() + random() % 100, std::byte{0xEE});
      void* request = nullptr;
      CHECK_EQUAL(
          calls.irecv(pair.receives, into.data(), into.size(), source[posted].tag, &request),
          kSuccess);
      if (request != nullptr) receiving.push_back({posted++, request});
    }
    // Each fault while messages are under way; nothing is sent after it before it is planted.
    const std::size_t limit = count * (planted + 1) / (faults + 1);
    if (sent < limit) {
      void* request = nullptr;
      // A tag that is not the next waits.
      CHECK_EQUAL(calls.isend(pair.sends, source[sent].data.data(), source[sent].data.size(),
                              source[sent].tag + 1000, &request),
                  kSuccess);
      CHECK(request == nullptr);
      CHECK_EQUAL(calls.isend(pair.sends, source[sent].data.data(), source[sent].data.size(),
                              source[sent].tag, &request),
                  kSuccess);
      if (request != nullptr) sending.push_back({sent++, request});
    }
    for (auto* queue : {&sending, &receiving})
      std::erase_if(*queue, [&](const Under& one) {
        int over = -1;
        int size = -1;
        CHECK_EQUAL(calls.test(one.request, &over, &size), kSuccess);
        if (over == 0) return false;
        ++done;
        CHECK_EQUAL(static_cast<std::size_t>(size), source[one.index].data.size());
        if (queue == &receiving) {
          const auto& data = source[one.index].data;
          CHECK(std::equal(data.begin(), data.end(), target[one.index].begin()));
          CHECK(std::all_of(target[one.index].begin() + size, target[one.index].end(),
                            [](std::byte byte) { return byte == std::byte{0xEE}; }));
        }
        return true;
      });
    if (planted < faults && sent >= limit && fault(random)) ++planted;
  }
  return planted;
}

// What the plugin of this process says to who asks.
std::string state() {
  const Socket asking(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string name = "cwai-net-" + std::to_string(getpid());
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  CHECK_EQUAL(::connect(asking.fd(), reinterpret_cast<const sockaddr*>(&address),
                        static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())),
              0);
  std::string told;
  std::array<char, 4096> some{};
  for (ssize_t n = 1; n > 0;) {
    n = ::recv(asking.fd(), some.data(), some.size(), 0);
    if (n > 0) told.append(some.data(), static_cast<std::size_t>(n));
  }
  return told;
}

std::vector<std::string> names(const std::vector<Rail>& rails) {
  std::vector<std::string> all;
  all.reserve(rails.size());
  for (const Rail& rail : rails) all.push_back(rail.name + "=" + rail.address);
  return all;
}

using Names = std::vector<std::string>;

const std::vector<InterfaceAddress> kHere = {
    {"lo", "127.0.0.1", 8, false, true, true},
    {"eth0", "fe80::1%eth0", 64, true, true, false},
    {"eth0", "fd00::5", 64, true, true, false},
    {"eth0", "10.0.0.5", 24, false, true, false},
    {"eth1", "10.0.1.5", 24, false, true, false},
    {"eth10", "10.0.2.5", 24, false, true, false},
    {"eth2", "10.0.3.5", 24, false, false, false},
    {"docker0", "172.17.0.1", 16, false, true, false},
};

std::vector<Rail> chosen(const Environment& environment) {
  return choose_rails(read_settings(environment), kHere);
}

Rail rail(const std::string& address, int prefix = 24) {
  return {.name = address, .address = address, .prefix = prefix};
}

using Pairs = std::vector<std::pair<std::size_t, std::size_t>>;

}  // namespace

// -----------------------------------------------------------------------------------------
// settings

TEST(net_plugin_reads_its_settings) {
  const Settings usual = read_settings({});
  CHECK(usual.connections == 1 && usual.resend && usual.timeout == 30 * kSecond);
  CHECK(usual.wrong.empty() && usual.unused.empty());
  const Settings told = read_settings({{"NCCL_IB_QPS_PER_CONNECTION", "0x10"},
                                       {"CTCCL_IB_RETRY_DISABLE", "1"},
                                       {"CWAI_NET_TIMEOUT", "7"},
                                       {"CWAI_NET_PATHS", "eth1,,eth0"},
                                       {"NCCL_IB_HCA", "mlx5"},
                                       {"NCCL_SOCKET_FAMILY", "AF_INET6"}});
  CHECK(told.connections == 16 && !told.resend && told.timeout == 7 * kSecond && told.family == 6);
  CHECK(told.paths == (Names{"eth1", "eth0"}));
  CHECK(told.hcas == "mlx5" && told.rdma_only == Names{"NCCL_IB_HCA"} && told.unused.empty());
  CHECK(told.wrong.empty());
}

TEST(net_plugin_reads_the_settings_of_rdma) {
  const Settings usual = read_settings({{"NCCL_IB_GID_INDEX", "-1"}, {"NCCL_IB_SL", "-1"}});
  CHECK(usual.transport == Transport::kEither && usual.nic.gid_index == -1);
  CHECK(usual.nic.service_level == 0 && usual.wrong.empty());
  const Settings told = read_settings({{"NCCL_IB_GID_INDEX", "3"},
                                       {"NCCL_IB_TC", "106"},
                                       {"NCCL_IB_SL", "4"},
                                       {"NCCL_IB_TIMEOUT", "22"},
                                       {"NCCL_IB_RETRY_CNT", "5"},
                                       {"NCCL_IB_PKEY", "1"},
                                       {"CWAI_NET_TRANSPORT", "rdma"}});
  CHECK(told.nic.gid_index == 3 && told.nic.traffic_class == 106 && told.nic.service_level == 4);
  CHECK(told.nic.timeout == 22 && told.nic.retries == 5 && told.wrong.empty());
  CHECK(told.transport == Transport::kRdma && told.unused == Names{"NCCL_IB_PKEY"});
  CHECK(read_settings({{"NCCL_IB_DISABLE", "1"}}).transport == Transport::kTcp);
  const Settings against =
      read_settings({{"NCCL_IB_DISABLE", "1"}, {"CWAI_NET_TRANSPORT", "rdma"}});
  CHECK(against.transport == Transport::kRdma && against.wrong.size() == 1);
  const Settings wrong = read_settings({{"NCCL_IB_TC", "256"},
                                        {"NCCL_IB_TIMEOUT", "-1"},
                                        {"NCCL_IB_RETRY_CNT", "eight"},
                                        {"CWAI_NET_TRANSPORT", "ib"}});
  CHECK(wrong.transport == Transport::kEither && wrong.wrong.size() == 4);
  CHECK(wrong.nic.traffic_class == 0 && wrong.nic.timeout == 14 && wrong.nic.retries == 7);
}

TEST(net_plugin_names_settings_that_cannot_be) {
  const Settings told = read_settings({{"NCCL_IB_QPS_PER_CONNECTION", "129"},
                                       {"CTCCL_IB_RETRY_DISABLE", "yes"},
                                       {"CWAI_NET_TIMEOUT", "0"},
                                       {"CWAI_NET_PATH", "eth0"}});
  CHECK(told.connections == 1 && told.resend && told.timeout == 30 * kSecond);
  CHECK_EQUAL(told.wrong.size(), 4U);
  for (const char* value : {"", "8k", "-1", "99999999999999999999"})
    CHECK_EQUAL(read_settings({{"NCCL_IB_QPS_PER_CONNECTION", value}}).wrong.size(), 1U);
}

// --------------------------------------------------------------------------------------------
// rails

TEST(net_plugin_chooses_interfaces_as_nccl_does) {
  CHECK(names(chosen({})) == (Names{"eth0=10.0.0.5", "eth1=10.0.1.5", "eth10=10.0.2.5"}));
  CHECK(names(chosen({{"NCCL_SOCKET_IFNAME", "eth1"}})) ==
        (Names{"eth1=10.0.1.5", "eth10=10.0.2.5"}));
  CHECK(names(chosen({{"NCCL_SOCKET_IFNAME", "=eth1"}})) == Names{"eth1=10.0.1.5"});
  CHECK(names(chosen({{"NCCL_SOCKET_IFNAME", "^eth1,lo"}})) ==
        (Names{"eth0=10.0.0.5", "docker0=172.17.0.1"}));
  CHECK(names(chosen({{"NCCL_SOCKET_IFNAME", "^=eth1,lo"}})) ==
        (Names{"eth0=10.0.0.5", "eth10=10.0.2.5", "docker0=172.17.0.1"}));
  CHECK(names(chosen({{"NCCL_SOCKET_FAMILY", "AF_INET6"}})) == Names{"eth0=fd00::5"});
  CHECK(names(chosen({{"CWAI_NET_PATHS", "10.0.1.5,eth0,127.0.0.9"}})) ==
        (Names{"eth1=10.0.1.5", "eth0=10.0.0.5", "127.0.0.9=127.0.0.9"}));
  CHECK_FAULT(chosen({{"NCCL_SOCKET_IFNAME", "wlan"}}), Fault::kAddress);
  CHECK_FAULT(chosen({{"CWAI_NET_PATHS", "eth2"}}), Fault::kAddress);
  CHECK_FAULT(chosen({{"CWAI_NET_PATHS", "eth0,10.0.0.5"}}), Fault::kAddress);
}

TEST(net_plugin_pairs_the_rails_of_two_nodes) {
  const std::vector<Rail> left = {rail("10.0.0.1"), rail("10.0.1.1"), rail("10.0.2.1")};
  // By their networks, in whatever order they stand.
  CHECK(pair_rails(left, {rail("10.0.2.9"), rail("10.0.0.9"), rail("10.0.1.9")}) ==
        (Pairs{{0, 1}, {1, 2}, {2, 0}}));
  // Of one flat network, and of networks that are routed, each with its own.
  const std::vector<Rail> flat = {rail("10.9.0.1", 16), rail("10.9.0.2", 16)};
  CHECK(pair_rails(flat, {rail("10.9.1.1", 16), rail("10.9.1.2", 16)}) == (Pairs{{0, 0}, {1, 1}}));
  CHECK(pair_rails(flat, {rail("10.8.1.1", 24), rail("10.8.2.2", 24)}) == (Pairs{{0, 0}, {1, 1}}));
  // One side has more: all are used, and the load on the other is even.
  CHECK(pair_rails(left, {rail("10.5.0.1"), rail("10.5.0.2")}) == (Pairs{{0, 0}, {1, 1}, {2, 0}}));
  CHECK(pair_rails({rail("10.0.1.5")}, left) == (Pairs{{0, 0}, {0, 1}, {0, 2}}));
  // No family in common.
  CHECK(pair_rails({rail("fd00::1", 64)}, left).empty());
  CHECK(pair_rails({rail("fd00::1", 64), rail("10.0.0.2")}, left) ==
        (Pairs{{1, 0}, {1, 1}, {1, 2}}));
  CHECK_EQUAL(agree(left, left, 100).routes.size(), kMostPaths);
  CHECK_EQUAL(agree(left, left, 4).routes.size(), 12U);
}

TEST(net_plugin_chooses_the_nics_that_nccl_ib_hca_names) {
  const std::vector<NicPort> ports = {{.device = "mlx5_0", .interface = "eth1"},
                                      {.device = "mlx5_1", .port = 1, .link = Link::kInfiniband},
                                      {.device = "mlx5_1", .port = 2, .link = Link::kInfiniband},
                                      {.device = "mlx5_10", .interface = "eth2"}};
  const auto rails = chosen({{"NCCL_SOCKET_IFNAME", "=eth0,docker0"}});
  const auto nics = [&](const std::string& list) {
    return names(choose_nics(read_settings({{"NCCL_IB_HCA", list}}), ports, kHere, rails));
  };
  // An interface that is down, or none: they meet by a rail of TCP, in turn.
  CHECK(nics("") == (Names{"mlx5_0:1=10.0.1.5", "mlx5_1:1=172.17.0.1", "mlx5_1:2=10.0.0.5",
                           "mlx5_10:1=172.17.0.1"}));
  CHECK(nics("mlx5_1") ==
        (Names{"mlx5_1:1=10.0.0.5", "mlx5_1:2=172.17.0.1", "mlx5_10:1=10.0.0.5"}));
  CHECK(nics("=mlx5_1:2,mlx5_0") == (Names{"mlx5_0:1=10.0.1.5", "mlx5_1:2=172.17.0.1"}));
  CHECK(nics("^mlx5_1:1,mlx5_10") == (Names{"mlx5_0:1=10.0.1.5", "mlx5_1:2=172.17.0.1"}));
  CHECK(nics("bnxt").empty());
}

TEST(net_plugin_two_ends_agree_on_rdma_or_tcp) {
  const auto nic = [](const std::string& address, Link link) {
    Rail one = rail(address);
    one.link = link;
    return one;
  };
  const std::vector<Rail> tcp = {rail("10.0.0.1"), rail("10.0.1.1")};
  std::vector<Rail> roce = tcp;
  roce.push_back(nic("10.0.1.1", Link::kRoce));
  std::vector<Rail> infiniband = tcp;
  infiniband.push_back(nic("10.0.0.1", Link::kInfiniband));
  const Agreement both = agree(roce, roce, 3);
  CHECK(both.transport == Transport::kRdma && both.routes.size() == 3 && both.why_tcp.empty());
  CHECK(std::all_of(both.routes.begin(), both.routes.end(), [](const Route& route) {
    return route.local.link == Link::kRoce && route.remote.link == Link::kRoce;
  }));
  const Agreement neither = agree(tcp, tcp, 1);
  CHECK(neither.transport == Transport::kTcp && neither.why_tcp.empty());
  for (const auto& [left, right] :
       {std::pair(roce, tcp), std::pair(tcp, roce), std::pair(roce, infiniband)}) {
    const Agreement one = agree(left, right, 1);
    CHECK(one.transport == Transport::kTcp && one.routes.size() == 2 && !one.why_tcp.empty());
  }
  // Where one may not fall back there is no path at all.
  CHECK(agree(usable(roce, Transport::kRdma), tcp, 1).routes.empty());
  CHECK_EQUAL(usable(roce, Transport::kTcp).size(), 2U);
  CHECK_EQUAL(usable(roce, Transport::kEither).size(), 3U);
}

// -----------------------------------------------------------------------------------------
// greetings

TEST(net_plugin_handles_and_greetings_are_read_or_refused) {
  Invitation invitation{.token = token(9), .places = {{"10.0.0.1", 4000}, {"fd00::7", 65535}}};
  std::array<std::byte, kHandleBytes> handle{};
  write_handle(invitation, handle);
  const Invitation read = read_handle(handle).value_or(Invitation{});
  CHECK(read.token == invitation.token);
  CHECK(read.places.size() == 2 && read.places[0].address == "10.0.0.1" &&
        read.places[0].port == 4000 && read.places[1].address == "fd00::7" &&
        read.places[1].port == 65535);
  for (std::size_t i = 0; i < handle.size(); ++i) {
    auto broken = handle;
    broken[i] ^= std::byte{4};
    CHECK(!read_handle(broken));
  }
  Greeting greeting{.word = Word::kMet, .path = 3, .count = 12, .token = token(1), .session = {}};
  for (int i = 0; i < 32; ++i) greeting.rails.push_back(rail("10.0." + std::to_string(i) + ".1"));
  greeting.rails[1] = {.name = "mlx5_1:2",
                       .address = "fd00::1",
                       .prefix = 64,
                       .port = 77,
                       .link = Link::kInfiniband};
  const GreetingBytes bytes = encode(greeting);
  const Greeting heard = decode(bytes).value_or(Greeting{});
  CHECK(heard.word == Word::kMet && heard.path == 3 && heard.count == 12);
  CHECK(heard.token == greeting.token && heard.session == greeting.session);
  CHECK_EQUAL(heard.rails.size(), 32U);
  CHECK(heard.rails[1].address == "fd00::1" && heard.rails[1].prefix == 64 &&
        heard.rails[1].port == 77 && heard.rails[1].name == "mlx5_1:2" &&
        heard.rails[1].link == Link::kInfiniband && heard.rails[2].link == Link::kTcp);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    GreetingBytes broken = bytes;
    broken[i] ^= std::byte{1};
    CHECK(!decode(broken));
  }
}

// --------------------------------------------------------------------------------------------
// tables

TEST(net_plugin_every_table_moves_data_and_survives_broken_paths) {
  on_three_paths();
  for (const int version : {8, 9, 10, 11, 12}) {
    const Calls calls = calls_of(version);
    CHECK_EQUAL(calls.init(), kSuccess);
    const Pair pair = meet(calls);
    const std::size_t faults = transfer(calls, pair, static_cast<std::uint64_t>(version), 60, 5);
    CHECK_EQUAL(faults, 5U);
    part(calls, pair);
  }
}

TEST(net_plugin_over_nics_survives_queue_pairs_that_break) {
  on_two_nics();
  for (const int version : {8, 12}) {
    const Calls calls = calls_of(version);
    CHECK_EQUAL(calls.init(), kSuccess);
    const Pair pair = meet(calls);
    const auto seed = static_cast<std::uint64_t>(version);
    CHECK_EQUAL(transfer(calls, pair, seed, 60, 5, break_a_nic), 5U);
    // The connections over which the ends met are broken off.
    CHECK_EQUAL(transfer(calls, pair, seed + 100, 60, 5), 5U);
    part(calls, pair);
  }
  all_is_let_go();
}

TEST(net_plugin_tells_which_ends_of_a_path_failed_and_why) {
  on_two_nics();
  const Calls calls = calls_of(12);
  CHECK_EQUAL(calls.init(), kSuccess);
  const Pair pair = meet(calls);
  transfer(calls, pair, 5, 20, 0);
  constexpr int kPortError = 10;
  fake().devices[1].port_state = 1;
  fake().raise(1, kPortError);
  const auto has = [](const std::string& part) { return state().find(part) != std::string::npos; };
  const std::string failed =
      "\"local_name\":\"fake1:1\",\"remote_name\":\"fake1:1\",\"state\":\"failed\"";
  for (const Watch watch(kPatience); !has(failed); watch.check())
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  CHECK(has("\"transport\":\"rdma\"") && has("\"remote_name\":\"fake0:1\",\"state\":\"healthy\""));
  CHECK(has("\"ago_ms\":"));
  // What is left carries all.
  transfer(calls, pair, 6, 20, 0);
  fake().devices[1].port_state = 4;
  part(calls, pair);
  all_is_let_go();
}

TEST(net_plugin_memory_stays_registered_until_it_is_taken_back) {
  on_two_nics();
  const Calls calls = calls_of(11);
  CHECK_EQUAL(calls.init(), kSuccess);
  const Pair pair = meet(calls);
  constexpr std::size_t kSize = 1 << 20;
  std::vector<std::byte> memory(kSize, std::byte{7});
  void* handle = nullptr;
  CHECK_EQUAL(calls.reg_mr(pair.sends, memory.data(), kSize, kPtrHost, &handle), kSuccess);
  CHECK(handle != nullptr && fake().registered(memory.data(), kSize));
  std::vector<std::byte> target(kSize);
  void* receive = nullptr;
  CHECK_EQUAL(calls.irecv(pair.receives, target.data(), kSize, 3, &receive), kSuccess);
  void* send = nullptr;
  const Watch watch(kPatience);
  while (send == nullptr) {
    watch.check();
    CHECK_EQUAL(calls.isend(pair.sends, memory.data() + 5, kSize - 9, 3, &send), kSuccess);
  }
  for (void* request : {send, receive})
    for (int done = 0, size = 0; done == 0; watch.check())
      CHECK_EQUAL(calls.test(request, &done, &size), kSuccess);
  CHECK(target[0] == std::byte{7} && target[kSize - 10] == std::byte{7});
  CHECK(target[kSize - 9] == std::byte{0});
  CHECK(fake().registered(memory.data(), kSize));
  CHECK_EQUAL(calls.dereg_mr(pair.sends, handle), kSuccess);
  CHECK(!fake().registered(memory.data() + 4096, kSize - 8192));
  // One that no NIC takes.
  fake().fail_after = 0;
  CHECK_EQUAL(calls.reg_mr(pair.receives, target.data(), kSize, kPtrHost, &handle), kSystemError);
  CHECK(handle == nullptr);
  fake().fail_after = -1;
  part(calls, pair);
  all_is_let_go();
}

namespace {

int pointers() {
  Properties12 properties{};
  CHECK_EQUAL(ncclNetPlugin_v12.get_properties(0, &properties), kSuccess);
  return properties.ptr_support;
}

}  // namespace

// From GPU to GPU, while queue pairs break; memory of the fake libcuda is the host's.
TEST(net_plugin_moves_memory_of_gpus_by_dma_buf) {
  on_two_nics();
  fake_gpu();
  const Table10& table = ncclNetPlugin_v10;
  const Calls calls = calls_of(10);
  constexpr std::size_t kSize = 8 << 20;
  const Gpu gpu(0);
  const GpuMemory from(gpu, kSize);
  const GpuMemory into(gpu, kSize);
  CHECK_EQUAL(calls.init(), kSuccess);
  CHECK_EQUAL(pointers() & (kPtrHost | kPtrDmaBuf), kPtrHost | kPtrDmaBuf);
  const Pair pair = meet(calls);
  std::vector<std::byte> source(kSize);
  std::mt19937_64 random(3);
  for (std::byte& byte : source) byte = static_cast<std::byte>(random());
  gpu.write(from.data(), source);
  void* sent = nullptr;
  void* received = nullptr;
  const int before = fake().dma_bufs;
  for (const auto& [comm, memory, handle] :
       {std::tuple(pair.sends, &from, &sent), std::tuple(pair.receives, &into, &received)}) {
    const int fd = memory->dma_buf();
    CHECK_EQUAL(table.reg_mr_dma_buf(comm, memory->data(), kSize, kPtrCuda, 0, fd, handle),
                kSuccess);
    CHECK_EQUAL(close(fd), 0);  // as NCCL does; a path that is made anew needs it still
  }
  CHECK(fake().dma_bufs > before);
  constexpr std::size_t kParts = 32;
  constexpr std::size_t kPart = kSize / kParts;
  std::vector<void*> requests;
  requests.reserve(2 * kParts);
  const Watch watch(kPatience);
  for (std::size_t i = 0; i < kParts; ++i) {
    void* data = into.data() + i * kPart;
    std::size_t size = kPart;
    int tag = 5;
    void* request = nullptr;
    CHECK_EQUAL(table.irecv(pair.receives, 1, &data, &size, &tag, &received, nullptr, &request),
                kSuccess);
    requests.push_back(request);
  }
  for (std::size_t i = 0; i < kParts; ++i) {
    if (i % 8 == 3) fake().force_errors(i / 8 % 2);
    void* request = nullptr;
    for (; request == nullptr; watch.check())
      CHECK_EQUAL(
          table.isend(pair.sends, from.data() + i * kPart, kPart, 5, sent, nullptr, &request),
          kSuccess);
    requests.push_back(request);
  }
  for (void* request : requests)
    for (int done = 0, size = 0; done == 0; watch.check())
      CHECK_EQUAL(table.test(request, &done, &size), kSuccess);
  void* data = into.data();
  int size = kPart;
  void* flush = &size;
  CHECK_EQUAL(table.iflush(pair.receives, 1, &data, &size, &received, &flush), kSuccess);
  CHECK(flush == nullptr && fake_gpu().flushes == 1);
  std::vector<std::byte> target(kSize);
  gpu.read(target, into.data());
  CHECK(target == source);
  CHECK(fake().dma_bufs > before + 4);  // both ends over both NICs, and again after they broke
  CHECK_EQUAL(table.dereg_mr(pair.sends, sent), kSuccess);
  CHECK_EQUAL(table.dereg_mr(pair.receives, received), kSuccess);
  part(calls, pair);
  all_is_let_go();
}

TEST(net_plugin_says_that_it_reaches_gpus_only_where_it_does) {
  on_two_nics();
  fake_gpu().flushable = false;
  const Gpu gpu(0);
  CHECK_EQUAL(calls_of(12).init(), kSuccess);
  CHECK_EQUAL(pointers(), kPtrHost);
}

TEST(net_plugin_over_tcp_refuses_memory_of_gpus) {
  on_three_paths();
  fake_gpu();
  const Gpu gpu(0);
  const GpuMemory memory(gpu, 1 << 20);
  const Calls calls = calls_of(9);
  CHECK_EQUAL(calls.init(), kSuccess);
  CHECK_EQUAL(pointers(), kPtrHost);
  const Pair pair = meet(calls);
  int something = 0;
  void* handle = &something;
  CHECK_EQUAL(calls.reg_mr(pair.sends, memory.data(), memory.size(), kPtrCuda, &handle),
              kInternalError);
  CHECK(handle == nullptr);
  part(calls, pair);
}

TEST(net_plugin_rdma_that_was_asked_for_and_is_not_there_is_an_error) {
  on_two_nics();
  for (FakeDevice& device : fake().devices) device.port_state = 1;
  CHECK_EQUAL(calls_of(12).init(), kInvalidUsage);
  fake().devices[1].port_state = 4;
  CHECK_EQUAL(calls_of(12).init(), kSuccess);
}

TEST(net_plugin_tables_say_what_the_device_is) {
  on_three_paths();
  CHECK_EQUAL(ncclNetPlugin_v8.init(nullptr), kSuccess);
  int count = 0;
  CHECK_EQUAL(ncclNetPlugin_v8.devices(&count), kSuccess);
  CHECK_EQUAL(count, 1);
  Properties8 p8{};
  Properties9 p9{};
  Properties11 p11{};
  Properties12 p12{};
  CHECK_EQUAL(ncclNetPlugin_v8.get_properties(0, &p8), kSuccess);
  CHECK_EQUAL(ncclNetPlugin_v9.get_properties(0, &p9), kSuccess);
  CHECK_EQUAL(ncclNetPlugin_v11.get_properties(0, &p11), kSuccess);
  CHECK_EQUAL(ncclNetPlugin_v12.get_properties(0, &p12), kSuccess);
  CHECK_EQUAL(std::string(p8.name), "cwai");
  CHECK(p8.ptr_support == kPtrHost && p8.max_recvs == 1 && p8.speed == 30'000);
  CHECK(p9.speed == p8.speed && p9.parts.count == 1 && p9.max_p2p_bytes == kMostBytes);
  CHECK(p11.common.speed == p8.speed && p11.max_multi_request == 1);
  CHECK(p12.speed == p8.speed && p12.rail_id == kNoId && p12.plane_id == kNoId);
  CHECK_EQUAL(ncclNetPlugin_v8.get_properties(1, &p8), kInternalError);
}

TEST(net_plugin_takes_as_many_requests_as_nccl_has) {
  on_three_paths();
  const Calls calls = calls_of(10);
  CHECK_EQUAL(calls.init(), kSuccess);
  const Pair pair = meet(calls);
  std::vector<std::array<std::byte, 8>> into(3 * kRequests);
  std::vector<void*> requests;
  for (auto& buffer : into) {
    void* request = nullptr;
    CHECK_EQUAL(calls.irecv(pair.receives, buffer.data(), buffer.size(), 1, &request), kSuccess);
    if (request == nullptr) break;
    requests.push_back(request);
  }
  CHECK(requests.size() >= kRequests && requests.size() < into.size());
  int done = 1;
  CHECK_EQUAL(calls.test(requests[0], &done, nullptr), kSuccess);
  CHECK_EQUAL(done, 0);
  // More than there is room for is a mistake of the caller.
  std::array<std::byte, 9> large{};
  const Watch watch(kPatience);
  Result result = kSuccess;
  void* request = nullptr;
  while (result == kSuccess) {
    watch.check();
    result = calls.isend(pair.sends, large.data(), large.size(), 1, &request);
    CHECK(request == nullptr);
  }
  CHECK_EQUAL(result, kInvalidUsage);
  void* flushed = &done;
  CHECK_EQUAL(calls.iflush(pair.receives, 1, nullptr, nullptr, nullptr, &flushed), kSuccess);
  CHECK(flushed == nullptr);
  // Closed in the middle: nobody writes to the buffers any more, and it does not hang.
  part(calls, pair);
}

TEST(net_plugin_a_foreign_handle_is_refused) {
  on_three_paths();
  const Calls calls = calls_of(12);
  CHECK_EQUAL(calls.init(), kSuccess);
  std::array<std::byte, kHandleBytes> handle{};
  void* comm = &handle;
  CHECK_EQUAL(calls.connect(handle.data(), &comm), kInvalidUsage);
  CHECK(comm == nullptr);
  // One that was closed meanwhile.
  void* listening = nullptr;
  CHECK_EQUAL(calls.listen(handle.data(), &listening), kSuccess);
  CHECK_EQUAL(calls.close_listen(listening), kSuccess);
  const Watch watch(kPatience);
  Result result = kSuccess;
  while (result == kSuccess) {
    watch.check();
    result = calls.connect(handle.data(), &comm);
    CHECK(comm == nullptr);
    std::this_thread::yield();
  }
  CHECK_EQUAL(result, kRemoteError);
}

TEST(net_plugin_tells_its_state_to_who_asks) {
  on_three_paths();
  const Calls calls = calls_of(9);
  CHECK_EQUAL(calls.init(), kSuccess);
  const Pair pair = meet(calls);
  transfer(calls, pair, 77, 20, 0);
  const std::string told = state();
  CHECK(told.starts_with("{\"schema\":2,"));
  CHECK(told.find("\"direction\":\"send\",\"peer\":\"127.0.0.1\",\"transport\":\"tcp\","
                  "\"transfers\":20,") != std::string::npos);
  CHECK(told.find("\"direction\":\"receive\"") != std::string::npos);
  CHECK(told.find("\"remote\":\"127.0.0.3\"") != std::string::npos);
  part(calls, pair);
}
