#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "bind/rooms.hpp"
#include "probe/bandwidth.hpp"
#include "probe/latency.hpp"
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

Token to_token(const py::bytes& bytes) {
  const std::string_view view = bytes;
  Token token{};
  if (view.size() != token.size()) throw Error(Fault::kInvalid, "token");
  std::memcpy(token.data(), view.data(), token.size());
  return token;
}

Waiting to_waiting(bool spin) { return spin ? Waiting::kSpin : Waiting::kBlock; }

// A connection as Python holds it: one run at a time, whichever thread it comes from.
class End {
  std::unique_ptr<Connection> connection_;  // first: the values below are taken from it
  std::atomic<bool> busy_{false};

 public:
  explicit End(std::unique_ptr<Connection> connection) : connection_(std::move(connection)) {}

  // Runs ``body`` without the GIL, on ``cpu``, as the only one.
  template <typename Body>
  auto exclusively(int cpu, Body body) {
    const py::gil_scoped_release released;
    if (busy_.exchange(true)) throw Error(Fault::kInUse, "connection");
    const Release release{busy_};
    if (!connection_) throw Error(Fault::kInvalid, "closed");
    const CpuPin pin(cpu);
    return body(*connection_);
  }

  // Gives the connection away; this end is closed then.
  std::unique_ptr<Connection> release() {
    if (busy_.exchange(true)) throw Error(Fault::kInUse, "connection");
    const Release release{busy_};
    if (!connection_) throw Error(Fault::kInvalid, "closed");
    return std::move(connection_);
  }

  void close() {
    if (busy_.exchange(true)) throw Error(Fault::kInUse, "connection");
    const Release release{busy_};
    connection_.reset();
  }

  // Kept as values: they can still be asked for when the connection is closed.
  const std::string transport{connection_->transport()};
  const int lanes{connection_->lanes()};
  const std::string local{connection_->local()};
  const std::string remote{connection_->remote()};

 private:
  struct Release {
    std::atomic<bool>& busy;
    ~Release() { busy.store(false); }
  };
};

py::dict bandwidth(End& end, std::size_t size, bool sends, bool receives, double duration,
                   std::uint64_t messages, double warmup, std::uint64_t warmup_messages,
                   double interval, bool verify, std::uint64_t seed, int cpu, double timeout) {
  const BandwidthSpec spec{.size = size,
                           .sends = sends,
                           .receives = receives,
                           .duration = nanos(duration),
                           .messages = messages,
                           .warmup = nanos(warmup),
                           .warmup_messages = warmup_messages,
                           .interval = nanos(interval),
                           .verify = verify,
                           .seed = seed};
  const BandwidthResult result = end.exclusively(cpu, [&](Connection& connection) {
    return measure_bandwidth(connection, spec, Watch(nanos(timeout)));
  });
  return py::dict("samples"_a = to_numpy(result.samples), "bytes"_a = result.bytes,
                  "messages"_a = result.messages, "elapsed"_a = seconds(result.elapsed),
                  "warmup_messages"_a = result.warmup_messages, "wrong"_a = result.wrong,
                  "first_bad"_a = result.first_bad, "peer_bytes"_a = result.peer_bytes,
                  "peer_elapsed"_a = seconds(result.peer_elapsed));
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
  return py::dict("samples"_a = to_numpy(result.samples), "wrong"_a = result.wrong,
                  "first_bad"_a = result.first_bad);
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
