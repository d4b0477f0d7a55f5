// Holds the calling thread on one CPU for as long as the object lives.
#pragma once

#include <sched.h>

namespace cwai {

class CpuPin {
 public:
  /// ``cpu`` -1 pins nothing. Throws Error(kPinning) with errno when the system refuses.
  explicit CpuPin(int cpu);
  ~CpuPin();
  CpuPin(const CpuPin&) = delete;
  CpuPin& operator=(const CpuPin&) = delete;

 private:
  bool pinned_ = false;
  cpu_set_t before_{};
};

}  // namespace cwai
