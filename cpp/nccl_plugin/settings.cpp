#include "nccl_plugin/settings.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <optional>
#include <sstream>
#include <tuple>

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

const char* transport_name(Transport transport) noexcept {
  switch (transport) {
    case Transport::kTcp:
      return "tcp";
    case Transport::kRdma:
      return "rdma";
    case Transport::kEither:
      break;
  }
  return "either";
}

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
  // A number of one field of ``nic``; -1 is as good as not set, where NCCL has it so.
  const std::map<std::string, std::tuple<int verbs::PathSpec::*, int, int>> of_nic = {
      {"NCCL_IB_GID_INDEX", {&verbs::PathSpec::gid_index, -1, 255}},
      {"NCCL_IB_TC", {&verbs::PathSpec::traffic_class, -1, 255}},
      {"NCCL_IB_SL", {&verbs::PathSpec::service_level, -1, 15}},
      {"NCCL_IB_TIMEOUT", {&verbs::PathSpec::timeout, 0, 31}},
      {"NCCL_IB_RETRY_CNT", {&verbs::PathSpec::retries, 0, 7}},
  };
  bool disabled = false;
  for (const auto& [name, value] : environment) {
    if (const auto field = of_nic.find(name); field != of_nic.end()) {
      const auto& [member, least, most] = field->second;
      const auto told = number(value);
      settings.rdma_only.push_back(name);
      if (!told || *told < least || *told > most)
        refuse(name, value,
               "in " + std::to_string(least) + ".." + std::to_string(most) + ": " +
                   std::to_string(settings.nic.*member) + " is taken");
      else if (*told >= 0)
        settings.nic.*member = static_cast<int>(*told);
    } else if (name == "NCCL_IB_HCA") {
      settings.hcas = value;
      settings.rdma_only.push_back(name);
    } else if (name == "NCCL_IB_DISABLE") {
      const auto told = number(value);
      if (!told) refuse(name, value, "0 or 1: 0 is taken");
      disabled = told && *told != 0;
    } else if (name == "CWAI_NET_TRANSPORT") {
      if (value == "tcp")
        settings.transport = Transport::kTcp;
      else if (value == "rdma")
        settings.transport = Transport::kRdma;
      else
        refuse(name, value, "tcp or rdma: RDMA is taken where both ends have it, TCP else");
    } else if (name == "NCCL_IB_QPS_PER_CONNECTION") {
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
  if (disabled && settings.transport == Transport::kRdma)
    settings.wrong.emplace_back("NCCL_IB_DISABLE=1 against CWAI_NET_TRANSPORT=rdma: RDMA is taken");
  else if (disabled)
    settings.transport = Transport::kTcp;
  return settings;
}

}  // namespace cwai::nccl_net
