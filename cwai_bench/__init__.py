"""cwai_bench: is this cluster fit to train, and if not, which node, card, NIC or link is not?

The command is ``cwai-bench``; ``ARCHITECTURE.md`` in the source tree is the map of the rooms.
"""

__version__ = "0.1.0"
