#include "nccl_plugin/nics.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "support/error.hpp"
#include "verbs/library.hpp"

namespace cwai::nccl_net {
namespace {

namespace fs = std::filesystem;

std::string first_word(const fs::path& path) {
  std::ifstream file(path);
  std::string word;
  file >> word;
  return word;
}

// RoCE: that of the GID in use, which may be a bond's. InfiniBand: that of IPoIB, of the same
// device and port (the kernel's Documentation/ABI/stable/sysfs-class-infiniband, sysfs-class-net).
std::string interface_of(const std::string& device, int port, int gid_index) {
  const fs::path folder = fs::path("/sys/class/infiniband") / device;
  const std::string number = std::to_string(port);
  std::string named =
      first_word(folder / "ports" / number / "gid_attrs/ndevs" / std::to_string(gid_index));
  if (!named.empty()) return named;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder / "device/net", none))
    if (first_word(entry.path() / "dev_port") == std::to_string(port - 1))
      return entry.path().filename();
  return "";
}

// Mb/s: lanes times the rate of each, by the codes of the port (IBTA vol. 1, PortInfo; those that
// ibv_query_port gives).
int speed_of(const verbs::PortAttr& attr) {
  const auto lanes = [&] {
    switch (attr.active_width) {
      case 1:
        return 1;
      case 2:
        return 4;
      case 4:
        return 8;
      case 8:
        return 12;
      case 16:
        return 2;
      default:
        return 0;
    }
  }();
  switch (attr.active_speed) {
    case 1:
      return lanes * 2'500;
    case 2:
      return lanes * 5'000;
    case 4:
    case 8:
      return lanes * 10'000;
    case 16:
      return lanes * 14'000;
    case 32:
      return lanes * 25'000;
    case 64:
      return lanes * 50'000;
    case 128:
      return lanes * 100'000;
    default:
      return 0;
  }
}

// With no dma-buf at all: whoever knows of them says that this is none, and others that there is no
// such thing.
bool registers_dma_bufs(verbs::Context& context) {
  const verbs::Library& library = verbs::Library::get();
  if (library.reg_dmabuf_mr == nullptr) return false;
  const verbs::PdPtr pd(library.alloc_pd(&context));
  if (pd == nullptr) return false;
  errno = 0;
  const verbs::MrPtr none(library.reg_dmabuf_mr(pd.get(), 0, 4096, 0, -1, 0));
  return none == nullptr && errno == EBADF;
}

void look_at(verbs::Context& context, const std::string& device, int port, int gid_index,
             bool dma_bufs, NicsHere& here) {
  const std::string place = device + ":" + std::to_string(port);
  try {
    const verbs::PortChoice found = verbs::choose(context, device, port, gid_index);
    here.ports.push_back(
        {.device = device,
         .port = port,
         .link = found.attr.link_layer == verbs::kLinkEthernet ? Link::kRoce : Link::kInfiniband,
         .speed = speed_of(found.attr),
         .interface = interface_of(device, port, found.gid_index),
         .dma_bufs = dma_bufs});
  } catch (const Error& error) {
    here.left_out.push_back(place + " (" + std::strerror(error.code()) + ")");
  }
}

}  // namespace

NicsHere nics_here(int gid_index) {
  const verbs::Library& library = verbs::Library::get();
  int count = 0;
  verbs::Device** const listed = library.get_device_list(&count);
  std::vector<std::string> names;
  names.reserve(static_cast<std::size_t>(std::max(count, 0)));
  for (int i = 0; listed != nullptr && i < count; ++i)
    names.emplace_back(library.get_device_name(listed[i]));
  if (listed != nullptr) library.free_device_list(listed);
  NicsHere here;
  for (const std::string& name : names) {
    try {
      const verbs::ContextPtr context = verbs::open(name);
      verbs::DeviceAttr attr{};
      library.query_device(context.get(), &attr);
      const bool dma_bufs = registers_dma_bufs(*context);
      for (int port = 1; port <= attr.phys_port_cnt; ++port)
        look_at(*context, name, port, gid_index, dma_bufs, here);
    } catch (const Error& error) {
      here.left_out.push_back(name + " (" + std::strerror(error.code()) + ")");
    }
  }
  return here;
}

}  // namespace cwai::nccl_net
