#include "probe/rdma.hpp"

#include <array>

#include "probe/run.hpp"
#include "support/error.hpp"

namespace cwai {

Remote swap_places(QueuePairs& pairs, const Memory& memory, const Watch& watch) {
  const Words theirs = swap_words(pairs.control(), {memory.base(), memory.region().rkey}, watch);
  return {.base = theirs[0], .key = static_cast<std::uint32_t>(theirs[1])};
}

verbs::SendWr request_of(Verb verb) {
  verbs::SendWr request{};
  request.num_sge = 1;
  request.opcode = verb == Verb::kWrite  ? verbs::kWrRdmaWrite
                   : verb == Verb::kRead ? verbs::kWrRdmaRead
                                         : verbs::kWrSend;
  return request;
}

Mismatch verify_rdma(QueuePairs& pairs, const Joined& joined, const Memory& memory,
                     const Remote& remote, Verb verb, std::size_t size, bool initiates,
                     bool answers, std::span<const std::size_t> landings, std::uint64_t seed,
                     const Watch& watch) {
  const bool pulls = verb == Verb::kRead;
  const auto landing = [&](std::size_t i) {
    return memory.incoming(memory.base(), i, verb == Verb::kSend ? landings[i] : 0);
  };
  const std::size_t count = joined.count();
  const bool comes = pulls ? initiates : answers;
  const bool goes = pulls ? answers : initiates;
  for (std::size_t i = 0; i < count; ++i) {
    if (goes) memory.fill(memory.outgoing(memory.base(), i, 0), size, mix(seed + i));
    // Nothing that was there before may pass for what should arrive.
    if (comes) memory.fill(landing(i), size, ~mix(seed + i));
  }
  swap_words(pairs.control(), {}, watch);  // both are ready
  std::array<verbs::Wc, 16> done;
  const auto await = [&](std::size_t left, auto poll) {
    for (Nanos look = watch.slice_end(); left > 0;) {
      left -= poll(done);
      if (const Nanos at = now(); at >= look) {
        watch.check(at);
        look = watch.slice_end();
      }
    }
  };
  if (initiates) {
    for (std::size_t i = 0; i < count; ++i) {
      verbs::Sge what{.addr = pulls ? memory.incoming(memory.base(), i, 0)
                                    : memory.outgoing(memory.base(), i, 0),
                      .length = static_cast<std::uint32_t>(size),
                      .lkey = memory.region().lkey};
      verbs::SendWr request = request_of(verb);
      request.sg_list = &what;
      request.send_flags = verbs::kSendSignaled;
      request.rdma = {.remote_addr = pulls ? memory.outgoing(remote.base, i, 0)
                                           : memory.incoming(remote.base, i, 0),
                      .rkey = remote.key};
      joined.post(i, &request);
    }
    await(count, [&](std::span<verbs::Wc> out) { return joined.sent(out); });
  }
  if (answers && verb == Verb::kSend)
    await(count, [&](std::span<verbs::Wc> out) { return joined.received(out); });
  swap_words(pairs.control(), {}, watch);  // all of it has arrived
  Mismatch all;
  for (std::size_t i = 0; comes && i < count; ++i) {
    const Mismatch one = memory.check(landing(i), size, mix(seed + i));
    if (all.wrong == 0 && one.wrong > 0)
      all.first_bad = static_cast<std::int64_t>(i * size) + one.first_bad;
    all.wrong += one.wrong;
  }
  // Both ends tell the same of it.
  const Words theirs =
      swap_words(pairs.control(), {all.wrong, static_cast<std::uint64_t>(all.first_bad)}, watch);
  if (all.wrong == 0) all.first_bad = static_cast<std::int64_t>(theirs[1]);
  all.wrong += theirs[0];
  return all;
}

}  // namespace cwai
