#include "nccl_plugin/settings.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <optional>
#include <sstream>

namespace cwai::nccl_net {
namespace {

constexpr int kMostConnections = 128;  // NCCL_IB_MAX_QPS
constexpr long long kLongestTimeout = 86'400;

// As NCCL reads numbers (src/misc/param.cc), but with nothing behind them.
std::optional<long long> number(const std::string& text) {
  char* end = nullptr;
  errno = 0;
  const long long value = std::strtoll(text.c_str(), &end, 0);
  if (errno != 0 || end == text.c_str() || *end != '\0') return std::nullopt;
  return value;
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream all(text);
  for (std::string part; std::getline(all, part, ',');)
    if (!part.empty()) parts.push_back(part);
  return parts;
}

bool starts(const std::string& text, const std::string& with) { return text.rfind(with, 0) == 0; }

}  // namespace

Environment environment() {
  Environment all;
  for (char** at = ::environ; at != nullptr && *at != nullptr; ++at) {
    const std::string entry = *at;
    if (const auto equals = entry.find('='); equals != std::string::npos)
      all.emplace(entry.substr(0, equals), entry.substr(equals + 1));
  }
  return all;
}

Settings read_settings(const Environment& environment) {
  Settings settings;
  const auto refuse = [&](const std::string& name, const std::string& value,
                          const std::string& due) {
    settings.wrong.push_back(name + "=" + value.substr(0, 64) + " is not " + due);
  };
  for (const auto& [name, value] : environment) {
    if (name == "NCCL_IB_QPS_PER_CONNECTION") {
      const auto told = number(value);
      if (told && *told >= 1 && *told <= kMostConnections)
        settings.connections = static_cast<int>(*told);
      else
        refuse(name, value, "in 1..128: 1 is taken");
    } else if (name == "CTCCL_IB_RETRY_DISABLE") {
      const auto told = number(value);
      if (told && (*told == 0 || *told == 1))
        settings.resend = *told == 0;
      else
        refuse(name, value, "0 or 1: 0 is taken");
    } else if (name == "CWAI_NET_TIMEOUT") {
      const auto told = number(value);
      if (told && *told >= 1 && *told <= kLongestTimeout)
        settings.timeout = *told * kSecond;
      else
        refuse(name, value, "in 1..86400 seconds: 30 is taken");
    } else if (name == "CWAI_NET_PATHS") {
      settings.paths = split(value);
    } else if (name == "NCCL_SOCKET_IFNAME") {
      if (value.size() > 1) settings.interfaces = value;  // as NCCL: one character counts as none
    } else if (name == "NCCL_SOCKET_FAMILY") {
      if (value == "AF_INET")
        settings.family = 4;
      else if (value == "AF_INET6")
        settings.family = 6;
      else
        refuse(name, value, "AF_INET or AF_INET6: both are taken");
    } else if (starts(name, "NCCL_IB_") || name == "NCCL_SOCKET_NTHREADS" ||
               name == "NCCL_NSOCKS_PERTHREAD") {
      settings.unused.push_back(name);
    } else if (starts(name, "CWAI_NET_")) {
      settings.wrong.push_back(name + " is not known");
    }
  }
  return settings;
}

}  // namespace cwai::nccl_net
