// The processes of a sweep among themselves: where they wait for one another and agree. What they
// measure goes by another way.
#pragma once

#include <cstddef>
#include <span>

namespace cwai {

class Meeting {
 public:
  virtual ~Meeting() = default;
  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;
  virtual void barrier() = 0;
  /// The largest, or the least, of all processes' values, each by itself, on every process; in
  /// place.
  virtual void largest(std::span<double> values) = 0;
  virtual void least(std::span<double> values) = 0;
  /// What the process ``root`` has, on every process.
  virtual void broadcast(std::span<std::byte> data, int root) = 0;
  /// One double each to and from another process: what clocks are compared by.
  virtual double exchange(double mine, int with) = 0;
};

/// One process alone.
class NobodyElse final : public Meeting {
 public:
  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return 1; }
  void barrier() override {}
  void largest(std::span<double>) override {}
  void least(std::span<double>) override {}
  void broadcast(std::span<std::byte>, int) override {}
  double exchange(double mine, int) override { return mine; }
};

/// A number for the kernel that this process runs on, 0 if it does not tell: its processes share a
/// clock.
double this_kernel();

/// Seconds to be added to this process's clock to have that of process 0, and by how much that may
/// be wrong: half the shortest of several round trips. Collective.
struct ClockOffset {
  double seconds = 0;
  double uncertainty = 0;
};
ClockOffset clock_offset(Meeting& meeting, double kernel = this_kernel());

}  // namespace cwai
