// What the receiving end knows of a transfer: which blocks it has, and who is writing where. Pure.
//
// A run goes straight to where it belongs, if nothing of it is there and no other path is writing
// there now; else it comes aside, and what is missing of it is copied. So a path that comes late,
// twice or broken never writes over what was accepted: acceptance is once, by block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "multipath/scheduler.hpp"

namespace cwai::multipath {

class Ledger {
 public:
  /// Of a transfer of ``blocks`` blocks, over so many paths.
  Ledger(std::uint32_t blocks, std::size_t paths) : has_(blocks, false), claims_(paths) {}

  /// Whether such a run can be part of it.
  bool covers(const Run& run) const noexcept {
    return run.count > 0 && run.first < has_.size() && run.count <= has_.size() - run.first;
  }

  /// ``path`` begins to receive ``run``. True: where it belongs, and nobody else writes there until
  /// settle() or release(). False: aside.
  bool claim(std::size_t path, const Run& run);
  /// The same where nothing can be copied afterwards: also over blocks that are there already,
  /// which then are written a second time with the same bytes, if any of it is missing.
  bool claim_over(std::size_t path, const Run& run);

  /// Other paths that are writing where ``run`` is missing: what they write must be turned aside,
  /// and each be released, before settle().
  std::vector<std::size_t> rivals(std::size_t path, const Run& run) const;

  /// ``path`` has received ``run``, and it is good. Returns what of it was missing, in order; of a
  /// run that came aside that is to be copied now. From here on it is there.
  std::vector<Run> settle(std::size_t path, const Run& run);

  /// ``path`` writes nothing any more.
  void release(std::size_t path) { claims_[path] = {}; }

  bool complete() const noexcept { return count_ == has_.size(); }
  std::uint32_t count() const noexcept { return count_; }

 private:
  std::vector<bool> has_;
  std::vector<Run> claims_;  // of a path that writes nothing: no blocks
  std::uint32_t count_ = 0;
};

}  // namespace cwai::multipath
