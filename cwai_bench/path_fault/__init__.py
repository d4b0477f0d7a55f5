"""Which part made a path fail: named from small probes over ends and entropies, and which probes to make next.

Pure; whoever drives it goes :func:`plan` → probes → :func:`localise`, for a few rounds, until the plan is empty.
Import it where it is used: it needs numpy.

A probe is bad when it failed; then all is asked again of those that were slow. A *part* makes probes bad that meet it:
a NIC those of its end, a node those of all its ends, a path those of one pair, a fabric those between groups of ends.
It meets a share ``ρ`` of the flows (a flow is source, target, entropy; a link inside the fabric has only those that are
hashed onto it, all else has them all) and makes a share ``s`` of their probes bad (all when dead, some when it loses).
Without any part one probe in a hundred is bad (``NOISE``). Neither share is known: likelihoods are averaged over a grid
of both, which prefers by itself what explains as much with less. Explanations are: nothing, one part, two at once,
a third beside the best two; each with any number of paths; weighed by how rare a part is (``PRIOR``).

So each part has a posterior probability, the **confidence**: the sum over all explanations with it. It is right as far
as the model is: of a hundred parts named at 0.98 two may be wrong when faults come as often as ``PRIOR`` says. One is
named at ``NAMED`` or more; a NIC or a node only when ends of two other nodes say so, or its own port does; a path when
neither end has another. When it is as good as sure that something is bad, and no part alone is, that is *ambiguous*.
These are always so from hosts:

- a NIC and its node, where the node has no other NIC that was probed;
- bad entropies of one end alone, which may be its uplink's or those of the uplink of all the others;
- a NIC or node beside a bad switch that is bad in the same way: it may hang on it.

Of a node that has two NICs, both bad in the same way, the node is named: one part is likelier than two.

A switch on which but one or two of the ends hang is told as these: what only one end uses is its uplink. Groups for a
fabric fault are found by joining ends, those first that are most surely fine with one another (greedy additive edge
contraction, Keuper et al. 2015). A fault behind a larger one is not seen.

Port events and counters of errors on the link make their NIC as much more probable as they are rare otherwise
(``EVENT``, ``COUNTED``). Of completions, 4, 9 and 10 (local protection, remote invalid request, remote access) tell of
configuration and are no fault of a path; 5 (flushed) follows from an error before and tells nothing; 12 (transport
retry exceeded) is a probe that failed. (Numbers: rdma-core, libibverbs/verbs.h, ``enum ibv_wc_status``.)

:mod:`cwai_bench.matrix` judges a grid in which each pair has one figure and most were measured, and a part is bad with
three quarters of its partners by a depth that noise does not explain. Here pairs are few and chosen, a pair has a
hundred yes-or-no answers, and the question is how many: a fault of one entropy in sixteen has no depth. What both hold:
two partners must say so, and two that are bad are not fine with one another, else they share a switch.
:mod:`cwai_bench.probes.slow_part` plans groups of any size for one figure, and asks ``matrix`` who it is.
"""

from cwai_bench.path_fault.explanations import PortEvent, Sign
from cwai_bench.path_fault.planning import LIMIT, plan
from cwai_bench.path_fault.seen import NOISE, SLOW, status_of
from cwai_bench.path_fault.telling import localise

__all__ = ["LIMIT", "NOISE", "SLOW", "PortEvent", "Sign", "localise", "plan", "status_of"]
