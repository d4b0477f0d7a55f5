#include <arpa/inet.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "bind/rooms.hpp"
#include "bind/token.hpp"
#include "probe/bandwidth.hpp"
#include "probe/latency.hpp"
#include "probe/rdma.hpp"
#include "support/cpu_pin.hpp"
#include "support/error.hpp"
#include "transport/backends.hpp"
#include "transport/loopback.hpp"
#include "transport/tcp.hpp"
#include "transport/verbs.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace cwai {
namespace {

py::array_t<double> to_numpy(const std::vector<double>& values) {
  return py::array_t<double>(static_cast<py::ssize_t>(values.size()), values.data());
}

Waiting to_waiting(bool spin) { return spin ? Waiting::kSpin : Waiting::kBlock; }

// What Python holds of a thing on which runs go on: one at a time, whichever thread it comes from.
template <typename Thing>
class Held {
  std::unique_ptr<Thing> thing_;
  std::atomic<bool> busy_{false};

 public:
  explicit Held(std::unique_ptr<Thing> thing) : thing_(std::move(thing)) {}

  // Runs ``body`` without the GIL, on ``cpu``, as the only one.
  template <typename Body>
  auto exclusively(int cpu, Body body) {
    const py::gil_scoped_release released;
    const Turn turn(busy_);
    if (!thing_) throw Error(Fault::kInvalid, "closed");
    const CpuPin pin(cpu);
    return body(*thing_);
  }

  // Gives the thing away; this is closed then.
  std::unique_ptr<Thing> release() {
    const Turn turn(busy_);
    if (!thing_) throw Error(Fault::kInvalid, "closed");
    return std::move(thing_);
  }

  void close() {
    const Turn turn(busy_);
    thing_.reset();
  }

 protected:
  const Thing& thing() const { return *thing_; }

 private:
  class Turn {
   public:
    explicit Turn(std::atomic<bool>& busy) : busy_(busy) {
      if (busy_.exchange(true)) throw Error(Fault::kInUse, "connection");
    }
    ~Turn() { busy_.store(false); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    std::atomic<bool>& busy_;
  };
};

// Values that can still be asked for when the thing is closed are taken when it is made.
class End : public Held<Connection> {
 public:
  using Held::Held;
  const std::string transport{thing().transport()};
  const int lanes{thing().lanes()};
  const std::string local{thing().local()};
  const std::string remote{thing().remote()};
};

std::string gid_text(const verbs::Gid& gid) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  inet_ntop(AF_INET6, gid.raw.data(), text.data(), text.size());
  return text.data();
}

class Pairs : public Held<QueuePairs> {
 public:
  using Held::Held;
  const std::string device{thing().spec().path.device};
  const int port{thing().spec().path.port};
  const int gid_index{thing().endpoint().port().gid_index};
  const std::string gid{gid_text(thing().endpoint().port().gid)};
  const int mtu{thing().endpoint().mtu()};
  const bool ethernet{thing().endpoint().port().attr.link_layer == verbs::kLinkEthernet};
  const bool v2{thing().endpoint().port().v2};
  const std::string remote{thing().remote()};
};

Verb to_verb(const std::string& name) {
  if (name == "write") return Verb::kWrite;
  if (name == "read") return Verb::kRead;
  if (name == "send") return Verb::kSend;
  throw Error(Fault::kInvalid, "verb " + name);
}

WindowSpec window_spec(double duration, std::uint64_t messages, double warmup,
                       std::uint64_t warmup_messages, double interval) {
  return {.duration = nanos(duration),
          .messages = messages,
          .warmup = nanos(warmup),
          .warmup_messages = warmup_messages,
          .interval = nanos(interval)};
}

py::dict to_dict(const BandwidthResult& result) {
  return py::dict("samples"_a = to_numpy(result.samples), "bytes"_a = result.bytes,
                  "messages"_a = result.messages, "elapsed"_a = seconds(result.elapsed),
                  "warmup_messages"_a = result.warmup_messages, "wrong"_a = result.wrong,
                  "first_bad"_a = result.first_bad, "peer_bytes"_a = result.peer_bytes,
                  "peer_elapsed"_a = seconds(result.peer_elapsed));
}

py::dict to_dict(const LatencyResult& result) {
  return py::dict("samples"_a = to_numpy(result.samples), "wrong"_a = result.wrong,
                  "first_bad"_a = result.first_bad);
}

py::dict bandwidth(End& end, std::size_t size, bool sends, bool receives, double duration,
                   std::uint64_t messages, double warmup, std::uint64_t warmup_messages,
                   double interval, bool verify, std::uint64_t seed, int cpu, double timeout) {
  BandwidthSpec spec;
  static_cast<WindowSpec&>(spec) =
      window_spec(duration, messages, warmup, warmup_messages, interval);
  spec.size = size;
  spec.sends = sends;
  spec.receives = receives;
  spec.verify = verify;
  spec.seed = seed;
  const BandwidthResult result = end.exclusively(cpu, [&](Connection& connection) {
    return measure_bandwidth(connection, spec, Watch(nanos(timeout)));
  });
  return to_dict(result);
}

py::dict latency(End& end, std::size_t size, bool initiates, std::uint64_t iterations,
                 double duration, std::uint64_t warmup, bool verify, std::uint64_t seed, int cpu,
                 double timeout) {
  const LatencySpec spec{.size = size,
                         .initiates = initiates,
                         .iterations = iterations,
                         .duration = nanos(duration),
                         .warmup = warmup,
                         .verify = verify,
                         .seed = seed};
  const LatencyResult result = end.exclusively(cpu, [&](Connection& connection) {
    return measure_latency(connection, spec, Watch(nanos(timeout)));
  });
  return to_dict(result);
}

py::dict rdma_bandwidth(Pairs& pairs, const std::string& verb, std::size_t size, bool initiates,
                        bool two_way, double duration, std::uint64_t messages, double warmup,
                        std::uint64_t warmup_messages, double interval, bool verify,
                        std::uint64_t seed, int cpu, double timeout) {
  RdmaBandwidthSpec spec;
  static_cast<WindowSpec&>(spec) =
      window_spec(duration, messages, warmup, warmup_messages, interval);
  spec.verb = to_verb(verb);
  spec.size = size;
  spec.initiates = initiates;
  spec.two_way = two_way;
  spec.verify = verify;
  spec.seed = seed;
  const RdmaBandwidthResult result = pairs.exclusively(cpu, [&](QueuePairs& ours) {
    return measure_rdma_bandwidth(ours, spec, Watch(nanos(timeout)));
  });
  py::dict told = to_dict(result);
  told["memory"] = result.memory;
  told["posting"] = result.posting;
  return told;
}

py::dict rdma_latency(Pairs& pairs, const std::string& verb, std::size_t size, bool initiates,
                      std::uint64_t iterations, double duration, std::uint64_t warmup, bool verify,
                      std::uint64_t seed, int cpu, double timeout) {
  const RdmaLatencySpec spec{.verb = to_verb(verb),
                             .size = size,
                             .initiates = initiates,
                             .iterations = iterations,
                             .duration = nanos(duration),
                             .warmup = warmup,
                             .verify = verify,
                             .seed = seed};
  return to_dict(pairs.exclusively(cpu, [&](QueuePairs& ours) {
    return measure_rdma_latency(ours, spec, Watch(nanos(timeout)));
  }));
}

}  // namespace

void register_transport(py::module_& m) {
  py::class_<End>(m, "Connection", "One end of a connection.")
      .def_readonly("transport", &End::transport)
      .def_readonly("lanes", &End::lanes)
      .def_readonly("local", &End::local)
      .def_readonly("remote", &End::remote)
      .def("close", &End::close, "Let it go; the peer sees the end.")
      .def("bandwidth", &bandwidth, py::kw_only(), "size"_a, "sends"_a, "receives"_a, "duration"_a,
           "messages"_a, "warmup"_a, "warmup_messages"_a, "interval"_a, "verify"_a, "seed"_a,
           "cpu"_a, "timeout"_a)
      .def("latency", &latency, py::kw_only(), "size"_a, "initiates"_a, "iterations"_a,
           "duration"_a, "warmup"_a, "verify"_a, "seed"_a, "cpu"_a, "timeout"_a);

  py::class_<TcpListener>(m, "Listener", "A listening TCP port.")
      .def(py::init<const std::string&, int, int>(), py::kw_only(), "address"_a, "port"_a,
           "attempts"_a)
      .def_property_readonly("address", &TcpListener::address)
      .def_property_readonly("port", &TcpListener::port)
      .def("strangers",
           [](const TcpListener& listener) {
             py::list all;
             for (const Stranger& stranger : listener.strangers())
               all.append(py::make_tuple(stranger.address, stranger.why));
             return all;
           })
      .def(
          "accept",
          [](TcpListener& listener, const py::bytes& token, int lanes, bool spin, double timeout) {
            const Token expected = to_token(token);
            const py::gil_scoped_release released;
            return std::make_unique<End>(
                listener.accept(expected, lanes, to_waiting(spin), Watch(nanos(timeout))));
          },
          py::kw_only(), "token"_a, "lanes"_a, "spin"_a, "timeout"_a);

  m.def(
      "connect",
      [](const std::string& address, int port, const py::bytes& token, int lanes, bool spin,
         const std::string& source, double timeout) {
        const Token ours = to_token(token);
        const py::gil_scoped_release released;
        return std::make_unique<End>(tcp_connect(address, port, ours, lanes, to_waiting(spin),
                                                 source, Watch(nanos(timeout))));
      },
      py::kw_only(), "address"_a, "port"_a, "token"_a, "lanes"_a, "spin"_a, "source"_a,
      "timeout"_a);

  m.def(
      "verbs_over",
      [](End& control, const std::string& device, int port, int gid_index, int lanes,
         int service_level, int traffic_class, int timeout_exponent, int retries, bool spin,
         double timeout) {
        const VerbsSpec spec{.path = {.device = device,
                                      .port = port,
                                      .gid_index = gid_index,
                                      .mtu = 0,
                                      .service_level = service_level,
                                      .traffic_class = traffic_class,
                                      .timeout = timeout_exponent,
                                      .retries = retries},
                             .lanes = lanes};
        const py::gil_scoped_release released;
        return std::make_unique<End>(
            verbs_over(control.release(), spec, to_waiting(spin), Watch(nanos(timeout))));
      },
      py::kw_only(), "control"_a, "device"_a, "port"_a, "gid_index"_a, "lanes"_a, "service_level"_a,
      "traffic_class"_a, "timeout_exponent"_a, "retries"_a, "spin"_a, "timeout"_a);

  py::class_<Pairs>(m, "QueuePairs", "One end of queue pairs.")
      .def_readonly("device", &Pairs::device)
      .def_readonly("port", &Pairs::port)
      .def_readonly("gid_index", &Pairs::gid_index)
      .def_readonly("gid", &Pairs::gid)
      .def_readonly("mtu", &Pairs::mtu)
      .def_readonly("ethernet", &Pairs::ethernet)
      .def_readonly("v2", &Pairs::v2)
      .def_readonly("remote", &Pairs::remote)
      .def("close", &Pairs::close, "Let them go; the peer sees the end.")
      .def("bandwidth", &rdma_bandwidth, py::kw_only(), "verb"_a, "size"_a, "initiates"_a,
           "two_way"_a, "duration"_a, "messages"_a, "warmup"_a, "warmup_messages"_a, "interval"_a,
           "verify"_a, "seed"_a, "cpu"_a, "timeout"_a)
      .def("latency", &rdma_latency, py::kw_only(), "verb"_a, "size"_a, "initiates"_a,
           "iterations"_a, "duration"_a, "warmup"_a, "verify"_a, "seed"_a, "cpu"_a, "timeout"_a);

  m.def(
      "queue_pairs",
      [](End& control, const std::string& device, int port, int gid_index, int count, int mtu,
         int service_level, int traffic_class, int timeout_exponent, int retries, int depth,
         int post_list, int inline_size, bool relaxed_ordering, bool huge_pages, bool cold,
         const std::string& gpu, double timeout) {
        const QueuePairsSpec spec{.path = {.device = device,
                                           .port = port,
                                           .gid_index = gid_index,
                                           .mtu = mtu,
                                           .service_level = service_level,
                                           .traffic_class = traffic_class,
                                           .timeout = timeout_exponent,
                                           .retries = retries},
                                  .count = count,
                                  .depth = depth,
                                  .post_list = post_list,
                                  .inline_size = inline_size,
                                  .relaxed_ordering = relaxed_ordering,
                                  .huge_pages = huge_pages,
                                  .cold = cold,
                                  .gpu = gpu};
        const py::gil_scoped_release released;
        return std::make_unique<Pairs>(
            std::make_unique<QueuePairs>(control.release(), spec, Watch(nanos(timeout))));
      },
      py::kw_only(), "control"_a, "device"_a, "port"_a, "gid_index"_a, "count"_a, "mtu"_a,
      "service_level"_a, "traffic_class"_a, "timeout_exponent"_a, "retries"_a, "depth"_a,
      "post_list"_a, "inline_size"_a, "relaxed_ordering"_a, "huge_pages"_a, "cold"_a, "gpu"_a,
      "timeout"_a);

  m.def(
      "memory_pair",
      [](int lanes, bool spin) {
        auto [first, second] = memory_pair(lanes, to_waiting(spin));
        return py::make_tuple(std::make_unique<End>(std::move(first)),
                              std::make_unique<End>(std::move(second)));
      },
      py::kw_only(), "lanes"_a, "spin"_a);

  m.def(
      "backends",
      [](const std::vector<std::string>& mpi_directories) {
        py::list all;
        for (const Backend& b : backends(mpi_directories))
          all.append(py::dict("name"_a = b.name, "built"_a = b.built, "loadable"_a = b.loadable,
                              "present"_a = b.present, "library"_a = b.library,
                              "loader"_a = b.loader, "devices"_a = b.devices));
        return all;
      },
      py::kw_only(), "mpi_directories"_a);
}

}  // namespace cwai
