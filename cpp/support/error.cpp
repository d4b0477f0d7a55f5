#include "support/error.hpp"

#include <array>
#include <system_error>
#include <utility>

namespace cwai {
namespace {

constexpr std::array<std::string_view, 23> kNames = {
    "invalid",     "in_use",      "address",     "ports_taken",   "listen",    "connect",
    "rejected",    "peer_closed", "transfer",    "misconfigured", "device",    "disagreed",
    "garbled",     "deadline",    "stopped",     "pinning",       "library",   "no_mpi",
    "unknown_mpi", "mpi",         "unsupported", "mixed",         "collective"};
static_assert(kNames.size() == static_cast<std::size_t>(Fault::kCollective) + 1);

std::string describe(Fault fault, const std::string& subject, int code, const std::string& vendor) {
  std::string text{fault_name(fault)};
  if (!subject.empty()) text += ": " + subject;
  if (code != 0) text += ": " + std::generic_category().message(code);
  if (!vendor.empty()) text += ": " + vendor;
  return text;
}

}  // namespace

std::string_view fault_name(Fault fault) noexcept {
  return kNames[static_cast<std::size_t>(fault)];
}

std::vector<std::string> fault_names() { return {kNames.begin(), kNames.end()}; }

Error::Error(Fault fault, std::string subject, int code, std::string vendor_code)
    : std::runtime_error(describe(fault, subject, code, vendor_code)),
      fault_(fault),
      code_(code),
      subject_(std::move(subject)),
      vendor_code_(std::move(vendor_code)) {}

}  // namespace cwai
