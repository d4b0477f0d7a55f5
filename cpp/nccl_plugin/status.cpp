#include "nccl_plugin/status.hpp"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <span>
#include <thread>
#include <utility>

#include "nccl_plugin/log.hpp"
#include "nccl_plugin/thread.hpp"

namespace cwai::nccl_net {
namespace {

constexpr int kSchema = 2;

std::string quoted(const std::string& text) {
  std::string json = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      json += '\\';
      json += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7E) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned char>(c));
      json += code;
    } else {
      json += c;
    }
  }
  return json + "\"";
}

// A JSON object in the making.
class Object {
 public:
  Object& with(const char* name, const std::string& json) {
    text_ += (text_.empty() ? "{\"" : ",\"") + std::string(name) + "\":" + json;
    return *this;
  }
  Object& number(const char* name, std::uint64_t value) {
    return with(name, std::to_string(value));
  }
  Object& word(const char* name, const std::string& value) { return with(name, quoted(value)); }
  std::string text() const { return text_ + "}"; }

 private:
  std::string text_;
};

template <typename Items, typename Show>
std::string array(const Items& items, const Show& show) {
  std::string text = "[";
  for (const auto& item : items) text.append(text.size() > 1 ? "," : "").append(show(item));
  return text + "]";
}

std::string show(const PathStatus& path) {
  Object json;
  json.word("local", path.local)
      .word("remote", path.remote)
      .word("local_name", path.local_name)
      .word("remote_name", path.remote_name)
      .word("state", multipath::path_state_name(path.state))
      .word("cause", path.cause ? multipath::cause_name(*path.cause) : "")
      .word("error", path.code == 0 ? "" : std::strerror(path.code))
      .number("code", static_cast<std::uint64_t>(path.code))
      .number("ago_ms", path.cause ? static_cast<std::uint64_t>((now() - path.at) / 1'000'000) : 0)
      .number("bytes", path.bytes)
      .number("lost", path.lost)
      .number("stalls", path.stalls)
      .number("failures", path.failures);
  return json.text();
}

std::string show(const CommStatus& comm) {
  Object json;
  json.word("direction", comm.sends ? "send" : "receive")
      .word("peer", comm.peer)
      .word("transport", transport_name(comm.transport))
      .number("transfers", comm.transfers)
      .number("bytes", comm.bytes)
      .number("outstanding", comm.outstanding)
      .word("error", comm.error)
      .with("paths", array(comm.paths, [](const PathStatus& path) { return show(path); }));
  return json.text();
}

bool may_ask(int fd) {
  ucred who{};
  socklen_t length = sizeof who;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length) == 0 &&
         (who.uid == 0 || who.uid == geteuid());
}

}  // namespace

StatusServer::StatusServer(const std::vector<Rail>& rails, const Settings& settings)
    : rails_(rails), settings_(settings) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string name = "cwai-net-" + std::to_string(getpid());
  std::memcpy(address.sun_path + 1, name.data(), name.size());  // abstract: it begins with a zero
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || ::bind(fd, reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
      ::listen(fd, 8) != 0) {
    inform("nobody can ask for the state of paths: " + name + ": " + std::strerror(errno));
    if (fd >= 0) ::close(fd);
    return;
  }
  start_thread("cwai-net-status", [this, fd] { serve(fd); });
}

void StatusServer::add(const std::shared_ptr<Comm>& comm) {
  const std::lock_guard lock(mutex_);
  std::erase_if(comms_, [](const auto& one) { return one.expired(); });
  comms_.push_back(comm);
}

std::string StatusServer::document() {
  std::vector<std::shared_ptr<Comm>> all;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& one : comms_)
      if (auto comm = one.lock()) all.push_back(std::move(comm));
  }
  std::vector<CommStatus> told;
  std::size_t paths = 0;
  for (const auto& comm : all) {
    CommStatus status = comm->status();
    paths += status.paths.size();
    if (told.size() == kMostComms || paths > kMostPathsTold) break;
    told.push_back(std::move(status));
  }
  Object json;
  json.number("schema", kSchema)
      .number("pid", static_cast<std::uint64_t>(getpid()))
      .with("rails", array(rails_,
                           [](const Rail& rail) {
                             Object one;
                             one.word("name", rail.name)
                                 .word("address", rail.address)
                                 .word("transport", rail.rdma() ? "rdma" : "tcp");
                             return one.text();
                           }))
      .number("connections", static_cast<std::uint64_t>(settings_.connections))
      .with("resend", settings_.resend ? "true" : "false")
      .number("timeout_s", static_cast<std::uint64_t>(settings_.timeout / kSecond))
      .with("comms", array(told, [](const CommStatus& comm) { return show(comm); }))
      .number("left_out", all.size() - told.size());
  return json.text();
}

void StatusServer::serve(int fd) noexcept {
  for (;;) {
    const Socket guest(::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC));
    if (!guest) {
      if (errno != EINTR && errno != ECONNABORTED)
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
      continue;
    }
    if (!may_ask(guest.fd())) continue;
    const timeval patience{.tv_sec = 1, .tv_usec = 0};
    setsockopt(guest.fd(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    try {
      const std::string text = document();
      for (std::size_t sent = 0; sent < text.size();) {
        const ssize_t n = ::send(guest.fd(), text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) break;
        sent += static_cast<std::size_t>(n);
      }
    } catch (const std::exception& error) {
      inform(std::string("the state of paths could not be told: ") + error.what());
    }
  }
}

}  // namespace cwai::nccl_net
