"""Make the GPU, its driver and torch dimensions of asv's plots: ``python -m benchmarks.machine NAME``.

Extra keys of a machine in ~/.asv-machine.json become dimensions; ``asv machine --yes`` wipes them, so this runs after.
"""

import json
import sys
from pathlib import Path


def main(name):
    """Write the dimensions of this machine under ``name``; asv must know the machine already."""
    from rls_bench.machines import host

    path = Path.home() / ".asv-machine.json"
    machines = json.loads(path.read_text())
    if name not in machines:
        sys.exit(f"{path} has no machine {name!r}; run `asv machine --machine {name} --yes` first")
    here = host.current()
    # A dimension that is missing on one machine splits its plots from the others: say "none" instead.
    machines[name] |= {"gpu": here.gpu_name or "none", "driver": here.driver or "none", "torch": here.torch}
    path.write_text(json.dumps(machines, indent=4))


if __name__ == "__main__":
    main(*sys.argv[1:])
