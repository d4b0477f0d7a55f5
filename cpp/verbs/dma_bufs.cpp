#include "verbs/dma_bufs.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "support/error.hpp"

namespace cwai::verbs {
namespace {

constexpr std::uint64_t kPage = 4096;

std::uint64_t page_of(std::uint64_t address) { return address & ~(kPage - 1); }

std::pair<std::uint64_t, std::uint64_t> range_of(std::span<const std::byte> memory) {
  const std::uint64_t begin = reinterpret_cast<std::uintptr_t>(memory.data());
  return {begin, begin + memory.size()};
}

}  // namespace

DmaBufs::~DmaBufs() {
  for (const auto& [range, entry] : entries_) ::close(entry.fd);
}

void DmaBufs::add(std::span<const std::byte> memory, int fd, std::uint64_t offset) {
  const std::lock_guard lock(mutex_);
  if (const auto found = entries_.find(range_of(memory)); found != entries_.end()) {
    ++found->second.count;
    return;
  }
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) throw Error(Fault::kDevice, "dma-buf", errno);
  entries_[range_of(memory)] = {.fd = copy, .offset = page_of(offset), .count = 1};
}

void DmaBufs::remove(std::span<const std::byte> memory) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(range_of(memory));
  if (found == entries_.end() || --found->second.count > 0) return;
  ::close(found->second.fd);
  entries_.erase(found);
}

std::optional<DmaBufPart> DmaBufs::find(std::span<const std::byte> memory) const {
  const std::lock_guard lock(mutex_);
  const auto [begin, end] = range_of(memory);
  const std::uint64_t page = page_of(begin);
  for (auto at = entries_.upper_bound({begin, UINT64_MAX}); at != entries_.begin();) {
    --at;
    const auto& [range, entry] = *at;
    if (end > range.second) continue;  // one that is larger may begin before it
    return DmaBufPart{.fd = entry.fd,
                      .offset = entry.offset + (page - page_of(range.first)),
                      .address = page,
                      .size = static_cast<std::size_t>(end - page)};
  }
  return std::nullopt;
}

}  // namespace cwai::verbs
