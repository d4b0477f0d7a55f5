// NVIDIA GPUs, through the driver's own library (libcuda), opened at run time: no CUDA is needed to
// build. Of the two interfaces of CUDA it is the one whose name does not change with every version,
// and its streams and primary contexts are those that NCCL and cuBLASLt work in.
//
// Pointers into a GPU's memory are std::byte*, as those of the host are: the CPU must not follow
// them. All errors are Error(kDevice) with the driver's own name of the error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "support/stop.hpp"

namespace cwai {

/// What a GPU says of itself; the numbers are CUdevice_attribute's.
enum class GpuAttribute : std::uint8_t {
  kMultiprocessors = 16,
  kMemoryClock = 36,     ///< kHz
  kMemoryBusWidth = 37,  ///< Bits.
  kL2Bytes = 38,
  kCopyEngines = 40,
  kComputeMajor = 75,
  kComputeMinor = 76,
  kDmaBuf = 124,
};

/// A hold on the primary context of a GPU; a copy is another one. Cheap once the context is there.
class Gpu {
 public:
  /// By its number among those that this process sees. Throws Error(kLibrary) without a driver.
  explicit Gpu(int ordinal);
  /// By its PCI address (``0000:1b:00.0``).
  explicit Gpu(const std::string& pci);
  Gpu(const Gpu& other);
  Gpu& operator=(const Gpu&) = delete;
  ~Gpu();

  /// How many this process sees; CUDA_VISIBLE_DEVICES has its say. 0 where there is a driver and no
  /// GPU.
  static int count();

  int ordinal() const noexcept { return device_; }
  std::string name() const;  ///< ``NVIDIA H200``
  std::string pci() const;   ///< ``0000:1b:00.0``, in small letters as sysfs has it.
  int attribute(GpuAttribute attribute) const;

  struct Memory {
    std::size_t total, free;
  };
  Memory memory() const;

  /// The CUcontext.
  void* context() const noexcept { return context_; }
  /// Makes it current in this thread; everything below does it by itself.
  void enter() const;

  /// These are done when they return, whatever streams there are.
  void write(std::byte* to, std::span<const std::byte> from) const;
  void read(std::span<std::byte> to, const std::byte* from) const;
  void fill(std::byte* to, std::uint8_t value, std::size_t bytes) const;

  /// Lets this GPU read and write the other's memory without the host between them. False where
  /// the hardware cannot.
  bool reach(const Gpu& other) const;

 private:
  int device_ = 0;  // a CUdevice, which is the ordinal
  void* context_ = nullptr;
};

/// Memory on a GPU, cleared.
class GpuMemory {
 public:
  GpuMemory(const Gpu& gpu, std::size_t bytes);
  ~GpuMemory();
  GpuMemory(const GpuMemory&) = delete;
  GpuMemory& operator=(const GpuMemory&) = delete;

  const Gpu& gpu() const noexcept { return gpu_; }
  std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }

  /// A dma-buf of all of it, to be closed by the caller; -1 where the GPU or the driver has none.
  int dma_buf() const;

 private:
  Gpu gpu_;
  std::size_t size_;
  std::byte* data_ = nullptr;
};

/// Memory of the host that GPUs copy from and to at full speed (page-locked), cleared.
class PinnedMemory {
 public:
  PinnedMemory(const Gpu& gpu, std::size_t bytes);
  ~PinnedMemory();
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }

 private:
  Gpu gpu_;
  std::size_t size_;
  std::byte* data_ = nullptr;
};

class Event;

/// A queue of work, which waits for no other stream.
class Stream {
 public:
  explicit Stream(const Gpu& gpu);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  const Gpu& gpu() const noexcept { return gpu_; }
  /// The CUstream, which is a cudaStream_t as well.
  void* handle() const noexcept { return handle_; }

  /// From and to any GPU's memory or the host's. Queued: both must live until it is done.
  void copy(std::byte* to, const std::byte* from, std::size_t bytes) const;
  void fill(std::byte* to, std::uint8_t value, std::size_t bytes) const;
  /// What is queued from now on waits until ``event``, of any stream, has happened.
  void after(const Event& event) const;

  /// Whether all that was queued is done. Throws what went wrong in it.
  bool done() const;
  /// Returns when it is. Throws kStopped and kDeadline, and leaves the work going on.
  void wait(const Watch& watch) const;

 private:
  Gpu gpu_;
  void* handle_ = nullptr;
};

/// A point in a stream, with the time at which the GPU came to it.
class Event {
 public:
  explicit Event(const Gpu& gpu);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(const Stream& stream) const;
  /// Seconds from ``start`` to here; both must have happened. In steps of about half a microsecond
  /// (cuEventElapsedTime in cuda.h).
  double since(const Event& start) const;

 private:
  friend class Stream;
  Gpu gpu_;
  void* handle_ = nullptr;
};

/// Work recorded once and queued in one go.
class Graph {
 public:
  /// Whether the driver has graphs.
  static bool possible();

  /// From now on what is queued on the stream is recorded, not done, until end(). Throws
  /// kUnsupported.
  explicit Graph(const Stream& stream);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void end();
  /// Queues it on the stream that it was recorded from.
  void launch() const;

 private:
  const Stream& stream_;
  bool recording_ = true;
  void* recorded_ = nullptr;
  void* ready_ = nullptr;
};

}  // namespace cwai
