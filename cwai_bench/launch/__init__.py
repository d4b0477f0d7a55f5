"""Launch: the only room that knows MPI, mpirun and ssh.

::

    front.py    cwai-bench run -np N | --hosts NODES: starts mpirun, and is first in the roster of keepers
    ssh.py      cwai-bench check --ssh NODES: one connection to each node, without MPI
    dialog.py   what is said over such a connection
    answer.py   the process that ssh starts on a node, or on a gateway: reads its facts, or asks its share of the nodes
    door.py     a password that was asked for once, and who may have it; askpass.py: how ssh asks for it
    world.py    what the launcher told this process (rank, size), and the group over MPI
    rank.py     what a rank does: join its keeper, meet the others, check, probe, wait for the verdict
    link.py     a rank's line to its keeper: records, heartbeats, signals seen
    keeper.py   owns a node's results and outlives its ranks; the first of the roster merges and publishes
    wire.py     frames between processes: bounded, and between nodes authenticated
    order.py    what was ordered, as it travels from the command line to every keeper
    finish.py   merge, judge, render, publish
"""
