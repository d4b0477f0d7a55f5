#include "support/cpu_pin.hpp"

#include <cerrno>
#include <string>

#include "support/error.hpp"

namespace cwai {

CpuPin::CpuPin(int cpu) {
  if (cpu == -1) return;
  const std::string subject = "cpu " + std::to_string(cpu);
  if (cpu < 0 || cpu >= CPU_SETSIZE) throw Error(Fault::kInvalid, subject);
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<std::size_t>(cpu), &one);
  if (sched_getaffinity(0, sizeof before_, &before_) != 0 ||
      sched_setaffinity(0, sizeof one, &one) != 0)
    throw Error(Fault::kPinning, subject, errno);
  pinned_ = true;
}

CpuPin::~CpuPin() {
  if (pinned_) sched_setaffinity(0, sizeof before_, &before_);
}

}  // namespace cwai
