// Memory that NICs reach by a dma-buf and not by its address alone: a GPU's, as its driver gave it
// away.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <utility>

namespace cwai::verbs {

/// What of a dma-buf is to be registered for a piece of memory, in whole pages: the device wants
/// addresses and places in the buffer to differ by pages.
struct DmaBufPart {
  int fd;
  std::uint64_t offset;
  std::uint64_t address;
  std::size_t size;
};

/// Which memory that is. From any thread.
class DmaBufs {
 public:
  DmaBufs() = default;
  ~DmaBufs();
  DmaBufs(const DmaBufs&) = delete;
  DmaBufs& operator=(const DmaBufs&) = delete;

  /// ``memory`` begins, as to its page, at ``offset`` of the dma-buf. Keeps a copy of ``fd`` until
  /// remove(). Throws Error(kDevice) with errno.
  void add(std::span<const std::byte> memory, int fd, std::uint64_t offset);
  void remove(std::span<const std::byte> memory);

  /// None: it is no such memory. ``fd`` is good until remove().
  std::optional<DmaBufPart> find(std::span<const std::byte> memory) const;

 private:
  using Range = std::pair<std::uint64_t, std::uint64_t>;  // address and end
  struct Entry {
    int fd;
    std::uint64_t offset;  // of the page in which it begins
    int count;
  };
  mutable std::mutex mutex_;
  std::map<Range, Entry> entries_;
};

}  // namespace cwai::verbs
