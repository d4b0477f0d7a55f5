"""One end of a transfer over several paths, as a program: options come as JSON, results leave as JSON.

``receive`` prints the ports that it listens at, then what it saw; ``send`` prints what it saw.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from cwai_bench import native

TOKEN = bytes(range(32))


def plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def main() -> None:
    side, options = sys.argv[1], json.loads(sys.argv[2])
    if side == "receive":
        listeners = native.PathListeners(options.pop("addresses"))
        print(json.dumps(listeners.ports), flush=True)
        received = listeners.receive(token=TOKEN, **options)
        print(json.dumps(asdict(received), default=plain), flush=True)
    else:
        faults = [native.PlantedFault(**fault) for fault in options.pop("faults", [])]
        routes = [(local, remote, port) for local, remote, port in options.pop("routes")]
        sent = native.multipath_send(routes=routes, token=TOKEN, faults=faults, **options)
        print(json.dumps(asdict(sent), default=plain), flush=True)


if __name__ == "__main__":
    main()
