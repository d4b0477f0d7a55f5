#include "verbs/library.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string_view>

#include "support/error.hpp"

namespace cwai::verbs {

Library::Library() : library_(DynamicLibrary::open("libibverbs.so.1")) {
  const auto take = [this](auto*& function, const char* symbol) {
    using Function = std::remove_reference_t<decltype(*function)>;
    function = library_.function<Function>(symbol);
  };
  take(get_device_list, "ibv_get_device_list");
  take(free_device_list, "ibv_free_device_list");
  take(get_device_name, "ibv_get_device_name");
  take(open_device, "ibv_open_device");
  take(close_device, "ibv_close_device");
  take(query_device, "ibv_query_device");
  take(query_port, "ibv_query_port");
  take(query_gid, "ibv_query_gid");
  take(get_async_event, "ibv_get_async_event");
  take(ack_async_event, "ibv_ack_async_event");
  take(alloc_pd, "ibv_alloc_pd");
  take(dealloc_pd, "ibv_dealloc_pd");
  take(reg_mr, "ibv_reg_mr");
  if (library_.has("ibv_reg_mr_iova2")) take(reg_mr_iova2, "ibv_reg_mr_iova2");
  if (library_.has("ibv_reg_dmabuf_mr")) take(reg_dmabuf_mr, "ibv_reg_dmabuf_mr");
  take(dereg_mr, "ibv_dereg_mr");
  take(create_comp_channel, "ibv_create_comp_channel");
  take(destroy_comp_channel, "ibv_destroy_comp_channel");
  take(create_cq, "ibv_create_cq");
  take(destroy_cq, "ibv_destroy_cq");
  take(get_cq_event, "ibv_get_cq_event");
  take(ack_cq_events, "ibv_ack_cq_events");
  take(create_qp, "ibv_create_qp");
  if (library_.has("ibv_qp_to_qp_ex")) take(qp_to_qp_ex, "ibv_qp_to_qp_ex");
  take(modify_qp, "ibv_modify_qp");
  take(destroy_qp, "ibv_destroy_qp");
  take(wc_status_str, "ibv_wc_status_str");
}

const Library& Library::get() {
  // Never let go: threads that use it may outlive main().
  static const Library* const library = new Library;
  return *library;
}

ContextPtr open(const std::string& name) {
  const Library& library = Library::get();
  int count = 0;
  Device** listed = library.get_device_list(&count);
  if (listed == nullptr) throw Error(Fault::kDevice, name, errno);
  ContextPtr context;
  int failed = ENODEV;
  for (int i = 0; i < count; ++i) {
    if (name != library.get_device_name(listed[i])) continue;
    errno = 0;
    context.reset(library.open_device(listed[i]));
    failed = errno != 0 ? errno : EIO;
    break;
  }
  library.free_device_list(listed);
  if (!context) throw Error(Fault::kDevice, name, failed);
  return context;
}

namespace {

constexpr std::array<std::uint8_t, 12> kIpv4Mapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};

bool is_zero(const Gid& gid) {
  return std::all_of(gid.raw.begin(), gid.raw.end(), [](std::uint8_t b) { return b == 0; });
}

// What the kernel says of a GID: ``IB/RoCE v1`` or ``RoCE v2``; a kernel that does not say has only
// the first.
bool is_v2(const std::string& device, int port, int index) {
  std::ifstream file("/sys/class/infiniband/" + device + "/ports/" + std::to_string(port) +
                     "/gid_attrs/types/" + std::to_string(index));
  std::string type;
  std::getline(file, type);
  return type.starts_with("RoCE v2");
}

// Lower is better.
int rank_of(const Gid& gid, bool v2) {
  if (!v2) return 3;
  if (std::equal(kIpv4Mapped.begin(), kIpv4Mapped.end(), gid.raw.begin())) return 0;
  const bool link_local = gid.raw[0] == 0xFE && (gid.raw[1] & 0xC0U) == 0x80;
  return link_local ? 2 : 1;
}

// An address vector has one byte for the index.
constexpr int kLastGid = 255;

}  // namespace

PortChoice choose(Context& context, const std::string& device, int port, int gid_index) {
  const Library& library = Library::get();
  const std::string place = device + ":" + std::to_string(port);
  PortChoice choice{};
  if (port < 1 || port > 255 ||
      library.query_port(&context, static_cast<std::uint8_t>(port), &choice.attr) != 0)
    throw Error(Fault::kDevice, place, ENXIO);
  if (choice.attr.state != kPortActive) throw Error(Fault::kDevice, place, ENETDOWN);
  const bool ethernet = choice.attr.link_layer == kLinkEthernet;
  int best = 4;
  const int first = std::max(gid_index, 0);
  const int last = gid_index >= 0 ? gid_index : ethernet ? choice.attr.gid_tbl_len - 1 : 0;
  for (int index = first; index <= std::min(last, kLastGid); ++index) {
    Gid gid{};
    if (library.query_gid(&context, static_cast<std::uint8_t>(port), index, &gid) != 0 ||
        is_zero(gid))
      continue;
    const bool v2 = ethernet && is_v2(device, port, index);
    const int rank = ethernet ? rank_of(gid, v2) : 0;
    if (rank >= best) continue;
    best = rank;
    choice.v2 = v2;
    choice.gid = gid;
    choice.gid_index = index;
  }
  if (best == 4) throw Error(Fault::kDevice, place + " gid", EADDRNOTAVAIL);
  return choice;
}

}  // namespace cwai::verbs
