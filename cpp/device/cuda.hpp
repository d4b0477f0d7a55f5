// Memory of NVIDIA GPUs, through the driver's own library (libcuda), opened at run time: no CUDA is
// needed to build.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace cwai {

/// Memory on one GPU. What it needs of the driver stays in use as long as it lives.
class GpuMemory {
 public:
  /// ``size`` bytes on the GPU at a PCI address (``0000:1b:00.0``). Throws Error: kLibrary, kDevice
  /// (with the driver's own name of the error).
  GpuMemory(const std::string& gpu, std::size_t size);
  ~GpuMemory();
  GpuMemory(const GpuMemory&) = delete;
  GpuMemory& operator=(const GpuMemory&) = delete;

  std::uint64_t address() const noexcept { return address_; }

  /// A dma-buf of all of it, to be closed by the caller; -1 where the GPU or the driver has none.
  int dma_buf() const;

  void write(std::uint64_t to, const std::byte* from, std::size_t size) const;
  void read(std::byte* to, std::uint64_t from, std::size_t size) const;

 private:
  void enter() const;

  int device_ = 0;
  void* context_ = nullptr;
  std::size_t size_;
  std::uint64_t address_ = 0;
};

}  // namespace cwai
