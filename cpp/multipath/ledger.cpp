#include "multipath/ledger.hpp"

namespace cwai::multipath {
namespace {

bool overlap(const Run& a, const Run& b) {
  return a.count > 0 && b.count > 0 && a.first < b.first + b.count && b.first < a.first + a.count;
}

}  // namespace

bool Ledger::claim(std::size_t path, const Run& run) {
  for (std::uint32_t block = run.first; block < run.first + run.count; ++block)
    if (has_[block]) return false;
  return claim_over(path, run);
}

bool Ledger::claim_over(std::size_t path, const Run& run) {
  bool missing = false;
  for (std::uint32_t block = run.first; block < run.first + run.count; ++block)
    missing = missing || !has_[block];
  if (!missing) return false;
  for (std::size_t other = 0; other < claims_.size(); ++other)
    if (other != path && overlap(claims_[other], run)) return false;
  claims_[path] = run;
  return true;
}

std::vector<std::size_t> Ledger::rivals(std::size_t path, const Run& run) const {
  std::vector<std::size_t> found;
  for (std::size_t other = 0; other < claims_.size(); ++other)
    if (other != path && overlap(claims_[other], run)) found.push_back(other);
  return found;
}

std::vector<Run> Ledger::settle(std::size_t path, const Run& run) {
  std::vector<Run> missing;
  for (std::uint32_t block = run.first; block < run.first + run.count; ++block) {
    if (has_[block]) continue;
    has_[block] = true;
    ++count_;
    if (!missing.empty() && missing.back().first + missing.back().count == block)
      ++missing.back().count;
    else
      missing.push_back({run.transfer, block, 1});
  }
  release(path);
  return missing;
}

}  // namespace cwai::multipath
