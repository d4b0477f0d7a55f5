// Ascend NPUs, through the runtime of their toolkit (libascendcl), opened at run time: no CANN is
// needed to build. Declared by us as CANN's acl/acl_rt.h has it (hicann/runtime,
// include/external/acl).
//
// Pointers into an NPU's memory are std::byte*, as those of the host are: the CPU must not follow
// them. All errors are Error(kDevice) with the runtime's own words. What an NPU is given at the
// start goes with the process: the runtime is not started twice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "support/dynamic_library.hpp"

namespace cwai {

/// A library of CANN: ``given``, a path, or else ``name`` beside ``neighbour`` (a path, may be
/// empty), as the loader finds it, or in lib64 of the toolkit that ASCEND_HOME_PATH names. Throws
/// Error(kLibrary) with what the loader said of the first that was tried.
DynamicLibrary ascend_library(const std::string& name, const std::string& given,
                              const std::string& neighbour = "");

/// Generations of NPUs whose collectives differ in what they can. One that is not known is taken
/// for the newest: then its library says what it cannot do.
enum class NpuKind : std::uint8_t {
  kFirst,   ///< Ascend 910, 310P.
  kSecond,  ///< 910B and 910_93 (Atlas A2, A3).
  kThird,   ///< 950.
};

/// One of those that this process sees.
class Npu {
 public:
  /// Opens the runtime, by its name or beside the library ``neighbour``; what opened it first
  /// counts. Throws Error(kLibrary).
  static void open(const std::string& neighbour = "");
  /// How many this process sees; ASCEND_RT_VISIBLE_DEVICES has its say. 0 where there is a runtime
  /// and no NPU.
  static int count();

  explicit Npu(int ordinal);

  int ordinal() const noexcept { return ordinal_; }
  /// Makes it current in this thread; everything below does it by itself.
  void enter() const;
  static std::string name();  ///< ``Ascend910B3``: all of a machine are of one kind.
  static NpuKind kind();

  /// These are done when they return.
  void write(std::byte* to, std::span<const std::byte> from) const;
  void read(std::span<std::byte> to, const std::byte* from) const;
  void fill(std::byte* to, std::uint8_t value, std::size_t bytes) const;

 private:
  int ordinal_;
};

/// Memory on an NPU, cleared.
class NpuMemory {
 public:
  NpuMemory(const Npu& npu, std::size_t bytes);
  ~NpuMemory();
  NpuMemory(const NpuMemory&) = delete;
  NpuMemory& operator=(const NpuMemory&) = delete;

  std::byte* data() const noexcept { return data_; }

 private:
  Npu npu_;
  std::byte* data_ = nullptr;
};

/// A queue of work.
class NpuStream {
 public:
  explicit NpuStream(const Npu& npu);
  ~NpuStream();
  NpuStream(const NpuStream&) = delete;
  NpuStream& operator=(const NpuStream&) = delete;

  /// The aclrtStream.
  void* handle() const noexcept { return handle_; }
  /// Whether all that was queued is done. Throws what went wrong in it.
  bool done() const;

 private:
  Npu npu_;
  void* handle_ = nullptr;
};

/// Ends what stands in a stream (an aclrtStream, of this thread's NPU). False where the runtime has
/// no such call, or refuses.
bool abort_npu_stream(void* stream) noexcept;

/// A point in a stream, with the time at which the NPU came to it.
class NpuEvent {
 public:
  explicit NpuEvent(const Npu& npu);
  ~NpuEvent();
  NpuEvent(const NpuEvent&) = delete;
  NpuEvent& operator=(const NpuEvent&) = delete;

  void record(const NpuStream& stream) const;
  /// Seconds from ``start`` to here; both must have happened.
  double since(const NpuEvent& start) const;

 private:
  Npu npu_;
  void* handle_ = nullptr;
};

/// What the runtime said last in this thread; empty where it said nothing.
std::string npu_words();

}  // namespace cwai
