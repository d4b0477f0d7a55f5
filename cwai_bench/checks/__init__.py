"""Checks judge facts. A check opens no device and starts nothing: it is a pure function of :class:`FactView`.

One file, one family; one decorator, one check::

    @node_check(
        "cpu.governor",
        title=Text("CPU frequency governor", "CPU 频率调节器"),
        method=Text("…", "…"), criterion=Text("…", "…"), suggestion=Text("…", "…"),
        reads=(File("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"),),
        severity=Severity.MAJOR, action=Action.FIX_CONFIG,
    )
    def governor(facts: FactView) -> Outcome: ...

``@consistency_check`` functions return the value to be compared across nodes, ``@configurable_check`` functions
the value to be held against the person's criterion. What cannot be read raises :class:`NotKnown` (→ UNKNOWN);
what does not apply here raises :class:`DoesNotApply` (→ SKIP).
"""
