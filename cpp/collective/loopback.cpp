#include "collective/loopback.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "collective/host.hpp"
#include "support/error.hpp"

namespace cwai {
namespace {

class Loopback final : public HostBackend {
 public:
  explicit Loopback(int members) : members_(static_cast<std::size_t>(members)) {
    std::iota(members_.begin(), members_.end(), 0);
  }

  int size() const noexcept override { return static_cast<int>(members_.size()); }
  std::span<const int> members() const noexcept override { return members_; }
  std::string library() const override { return "loopback"; }

  bool can(Operation operation, Element element, Reduction reduction,
           bool in_place) const noexcept override {
    if (in_place) return false;
    if (!reduces(operation)) return true;
    return reduction <= Reduction::kMin && element != Element::kFloat16 &&
           element != Element::kBfloat16 && element != Element::kFloat8E4M3 &&
           element != Element::kFloat8E5M2;
  }

  void post(const Call& c) override {
    const std::size_t block = c.count * element_size(c.element), n = members_.size();
    const auto root = static_cast<std::size_t>(c.root);
    const auto copy = [&](std::size_t to, std::size_t at, std::size_t from, std::size_t offset,
                          std::size_t bytes) {
      std::memcpy(c.receive[to] + at, c.send[from] + offset, bytes);
    };
    for (std::size_t me = 0; me < n; ++me) {
      switch (c.operation) {
        case Operation::kAllReduce:
          combine(c, me, 0);
          break;
        case Operation::kReduce:
          if (me == root) combine(c, me, 0);
          break;
        case Operation::kReduceScatter:
          combine(c, me, me * c.count);
          break;
        case Operation::kBroadcast:
          if (me != root) copy(me, 0, root, 0, block);
          break;
        case Operation::kScatter:
          copy(me, 0, root, me * block, block);
          break;
        case Operation::kSendRecv:
          copy(me, 0, (me + n - 1) % n, 0, block);
          break;
        case Operation::kAllGather:
          for (std::size_t from = 0; from < n; ++from) copy(me, from * block, from, 0, block);
          break;
        case Operation::kGather:
          if (me != root) break;
          for (std::size_t from = 0; from < n; ++from) copy(me, from * block, from, 0, block);
          break;
        case Operation::kAllToAll:
          for (std::size_t from = 0; from < n; ++from)
            copy(me, from * block, from, me * block, block);
          break;
        case Operation::kAllToAllV: {
          const std::size_t unit = element_size(c.element);
          for (std::size_t from = 0; from < n; ++from)
            copy(me, c.uneven[me].receive_offsets[from] * unit, from,
                 c.uneven[from].send_offsets[me] * unit, c.uneven[from].send_counts[me] * unit);
          break;
        }
      }
    }
  }

 private:
  // Into member ``me``'s receive buffer: what all have sent, from element ``first`` on.
  void combine(const Call& c, std::size_t me, std::size_t first) const {
    switch (c.element) {
      case Element::kInt8:
        return combine_as<std::int8_t>(c, me, first);
      case Element::kUint8:
        return combine_as<std::uint8_t>(c, me, first);
      case Element::kInt16:
        return combine_as<std::int16_t>(c, me, first);
      case Element::kUint16:
        return combine_as<std::uint16_t>(c, me, first);
      case Element::kInt32:
        return combine_as<std::int32_t>(c, me, first);
      case Element::kUint32:
        return combine_as<std::uint32_t>(c, me, first);
      case Element::kInt64:
        return combine_as<std::int64_t>(c, me, first);
      case Element::kUint64:
        return combine_as<std::uint64_t>(c, me, first);
      case Element::kFloat32:
        return combine_as<float>(c, me, first);
      case Element::kFloat64:
        return combine_as<double>(c, me, first);
      default:  // can() has refused it
        throw Error(Fault::kUnsupported, library(), 0, element_name(c.element));
    }
  }

  template <typename T>
  void combine_as(const Call& c, std::size_t me, std::size_t first) const {
    T* out = reinterpret_cast<T*>(c.receive[me]);
    const auto sent = [&](std::size_t member) {
      return reinterpret_cast<const T*>(c.send[member]) + first;
    };
    std::copy_n(sent(0), c.count, out);
    for (std::size_t member = 1; member < members_.size(); ++member) {
      const T* in = sent(member);
      const auto each = [&](auto&& op) {
        for (std::size_t i = 0; i < c.count; ++i) out[i] = op(out[i], in[i]);
      };
      switch (c.reduction) {
        case Reduction::kProd:
          each([](T a, T b) { return static_cast<T>(a * b); });
          break;
        case Reduction::kMax:
          each([](T a, T b) { return std::max(a, b); });
          break;
        case Reduction::kMin:
          each([](T a, T b) { return std::min(a, b); });
          break;
        default:
          each([](T a, T b) { return static_cast<T>(a + b); });
          break;
      }
    }
  }

  std::vector<int> members_;
};

}  // namespace

std::unique_ptr<CollectiveBackend> loopback_group(int members) {
  if (members < 1) throw Error(Fault::kInvalid, "members=" + std::to_string(members));
  return std::make_unique<Loopback>(members);
}

}  // namespace cwai
