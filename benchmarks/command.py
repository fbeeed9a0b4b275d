"""Wall and processor time of the command in fresh processes, cold and warm.

Measured are `import jax`, `import jaxgrad`, and `jaxgrad verify`.
"Cold" starts with an empty cache of compiled programs, "warm" with the one that the cold run left.
Runs of all kinds alternate, since machines drift; medians are printed. Run with

    python benchmarks/command.py [--runs N] [--json PATH]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMPORTS = {
    "import jax": "import jax",
    "from jaxgrad import verify, …": "import sys; from jaxgrad import catalog, masks, verify; "
    "assert 'torch' not in sys.modules",
}
COMMANDS = {
    "jaxgrad verify, cold": ("verify", True),
    "jaxgrad verify, warm": ("verify", False),
    "one masked verification, cold": (
        "verify masked_autoencoder_bernoulli --evidence monte_carlo",
        True,
    ),
    "one masked verification, warm": (
        "verify masked_autoencoder_bernoulli --evidence monte_carlo",
        False,
    ),
}


def run(arguments, cache):
    """Return wall and processor seconds, children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        check=True,
        env={**os.environ, "JAXGRAD_CACHE": cache},
        stdout=subprocess.DEVNULL,
    )
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    times = {name: [] for name in (*IMPORTS, *COMMANDS)}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(options.runs):
            for name, code in IMPORTS.items():
                times[name].append(run(["-c", code], "off"))
            for name, (command, cold) in COMMANDS.items():
                cache = str(Path(folder) / f"{i} {command}")
                assert cold is not Path(cache).exists()
                times[name].append(run(["-m", "jaxgrad", *command.split()], cache))
    print("| | wall, s | processor, s | fastest, s |\n| --- | ---: | ---: | ---: |")
    medians = {}
    for name, measured in times.items():
        wall, processor = (statistics.median(column) for column in zip(*measured, strict=True))
        medians[name] = wall
        print(f"| {name} | {wall:.2f} | {processor:.2f} | {min(measured)[0]:.2f} |")
    plain, ours = (medians[name] for name in IMPORTS)
    print(
        f"\njaxgrad's names, which load what they need when first used, take {ours - plain:.2f} s "
        f"more than `import jax`."
    )
    if options.json:
        columns = {
            name: dict(zip(("wall", "processor"), zip(*measured, strict=True), strict=True))
            for name, measured in times.items()
        }
        options.json.write_text(json.dumps(columns))


if __name__ == "__main__":
    main()
