#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bind/rooms.hpp"
#include "bind/token.hpp"
#include "multipath/run.hpp"
#include "support/error.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace cwai {
namespace {

using namespace multipath;

constexpr std::array<std::pair<const char*, Policy>, 5> kPolicies = {
    {{"single", Policy::kSingle},
     {"round_robin", Policy::kRoundRobin},
     {"equal", Policy::kEqual},
     {"weighted", Policy::kWeighted},
     {"pull", Policy::kPull}}};

Policy to_policy(const std::string& name) {
  for (const auto& [known, policy] : kPolicies)
    if (name == known) return policy;
  throw Error(Fault::kInvalid, "policy " + name);
}

constexpr std::array<std::pair<const char*, Rehearsal::Kind>, 4> kRehearsals = {
    {{"cut", Rehearsal::Kind::kCut},
     {"reset", Rehearsal::Kind::kReset},
     {"slow", Rehearsal::Kind::kSlow},
     {"corrupt", Rehearsal::Kind::kCorrupt}}};

// (path, kind, begin, end, rate)
using RehearsalTuple = std::tuple<std::size_t, std::string, double, double, double>;

Rehearsal to_rehearsal(const RehearsalTuple& from) {
  const auto& [path, name, begin, end, rate] = from;
  for (const auto& [known, kind] : kRehearsals)
    if (name == known) return {path, nanos(begin), nanos(end), kind, rate};
  throw Error(Fault::kInvalid, "rehearsal " + name);
}

py::list events(const std::vector<PathEvent>& all) {
  py::list out;
  for (const auto& [event, connection] : all)
    out.append(py::dict(
        "at"_a = seconds(event.at), "path"_a = event.path, "state"_a = path_state_name(event.state),
        "cause"_a = cause_name(event.cause), "code"_a = event.code, "connection"_a = connection));
  return out;
}

py::tuple ended(const Ended& how) { return py::make_tuple(how.fault, how.why, how.code); }

// (device, port, gid_index, timeout, retries); without a device: TCP
using NicTuple = std::tuple<std::string, int, int, int, int>;

std::vector<std::optional<verbs::PathSpec>> to_nics(const std::vector<NicTuple>& from,
                                                    std::size_t paths) {
  if (!from.empty() && from.size() != paths)
    throw Error(Fault::kInvalid, "nics " + std::to_string(from.size()));
  std::vector<std::optional<verbs::PathSpec>> nics(paths);
  for (std::size_t i = 0; i < from.size(); ++i) {
    const auto& [device, port, gid_index, timeout, retries] = from[i];
    if (!device.empty())
      nics[i] = verbs::PathSpec{.device = device,
                                .port = port,
                                .gid_index = gid_index,
                                .timeout = timeout,
                                .retries = retries};
  }
  return nics;
}

Work to_work(std::size_t bytes, std::uint32_t transfers, std::size_t block, std::size_t connections,
             std::uint64_t seed, double timeout) {
  return {.bytes = bytes,
          .transfers = transfers,
          .block = block,
          .connections = connections,
          .seed = seed,
          .timeout = nanos(timeout)};
}

py::dict send_all(const std::vector<std::tuple<std::string, std::string, int>>& routes,
                  const std::vector<NicTuple>& nics, const py::bytes& token,
                  const std::string& policy, const std::vector<double>& weights, std::size_t bytes,
                  std::uint32_t transfers, std::size_t block, std::size_t connections,
                  std::uint32_t longest_run, double horizon, double stall, double duplicates,
                  bool resend, const std::vector<RehearsalTuple>& rehearsals, std::uint64_t seed,
                  double connect_timeout, double timeout) {
  const auto over = to_nics(nics, routes.size());
  std::vector<Route> all;
  all.reserve(routes.size());
  for (const auto& [local, remote, port] : routes)
    all.push_back({local, remote, port, over[all.size()]});
  std::vector<Rehearsal> planted;
  for (const RehearsalTuple& one : rehearsals) planted.push_back(to_rehearsal(one));
  SenderSpec spec;
  spec.scheduler.policy = to_policy(policy);
  spec.scheduler.weights = weights;
  spec.scheduler.longest_run = longest_run;
  spec.scheduler.horizon = nanos(horizon);
  spec.scheduler.stall = nanos(stall);
  spec.scheduler.duplicates = duplicates;
  spec.resend = resend;
  const Work work = to_work(bytes, transfers, block, connections, seed, timeout);
  const Token ours = to_token(token);
  SendResult result;
  {
    const py::gil_scoped_release released;
    result = multipath::send(all, ours, spec, work, planted, nanos(connect_timeout));
  }
  py::list paths;
  for (const PathResult& path : result.paths)
    paths.append(
        py::dict("sent"_a = path.counts.sent, "delivered"_a = path.counts.delivered,
                 "again"_a = path.counts.again, "lost"_a = path.counts.lost,
                 "stalls"_a = path.counts.stalls, "failures"_a = path.failures,
                 "state"_a = path_state_name(path.state), "connected"_a = path.connected,
                 "timeline"_a = py::array_t<std::uint64_t>(
                     static_cast<py::ssize_t>(path.timeline.size()), path.timeline.data())));
  return py::dict("times"_a = py::array_t<double>(static_cast<py::ssize_t>(result.times.size()),
                                                  result.times.data()),
                  "delivered"_a = result.delivered, "start"_a = result.start,
                  "step"_a = result.step, "recovered"_a = result.recovered, "paths"_a = paths,
                  "events"_a = events(result.events), "ended"_a = ended(result.ended));
}

py::dict receive_all(Listeners& listeners, const py::bytes& token, std::size_t bytes,
                     std::uint32_t transfers, std::size_t block, std::size_t connections,
                     std::uint64_t seed, double timeout) {
  const Work work = to_work(bytes, transfers, block, connections, seed, timeout);
  const Token expected = to_token(token);
  ReceiveResult result;
  {
    const py::gil_scoped_release released;
    result = listeners.receive(expected, work);
  }
  py::list paths;
  for (const ArrivalCounts& path : result.paths)
    paths.append(py::dict("bytes"_a = path.bytes, "twice"_a = path.twice,
                          "corrupt"_a = path.corrupt, "broken"_a = path.broken));
  return py::dict("complete"_a = result.complete, "wrong"_a = result.wrong,
                  "first_bad"_a = result.first_bad, "paths"_a = paths,
                  "events"_a = events(result.events), "ended"_a = ended(result.ended));
}

}  // namespace

void register_multipath(py::module_& m) {
  py::class_<Listeners>(m, "PathListeners", "A listening TCP port for each path.")
      .def(py::init(
               [](const std::vector<std::string>& addresses, const std::vector<NicTuple>& nics) {
                 return std::make_unique<Listeners>(addresses, to_nics(nics, addresses.size()));
               }),
           py::kw_only(), "addresses"_a, "nics"_a)
      .def_property_readonly("ports", &Listeners::ports)
      .def("receive", &receive_all, py::kw_only(), "token"_a, "bytes"_a, "transfers"_a, "block"_a,
           "connections"_a, "seed"_a, "timeout"_a);
  m.def("multipath_send", &send_all, py::kw_only(), "routes"_a, "nics"_a, "token"_a, "policy"_a,
        "weights"_a, "bytes"_a, "transfers"_a, "block"_a, "connections"_a, "longest_run"_a,
        "horizon"_a, "stall"_a, "duplicates"_a, "resend"_a, "rehearsals"_a, "seed"_a,
        "connect_timeout"_a, "timeout"_a);
}

}  // namespace cwai
