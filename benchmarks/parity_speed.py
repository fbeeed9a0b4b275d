"""How long do record and check take for a transformer, and what does isolation hold in memory?

`nn.TransformerEncoder` of 4 layers, width 64, batch 4 × 16, in training with dropout replayed. Cold
is a process with an empty cache of compiled programs; warm is the next one. "Again" is the same
process, the same `Checker`, another golden. Run with

    python benchmarks/parity_speed.py
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
AIMS = {"cold": 20.0, "warm": 5.0}


def once(bug):
    """Record and check in this process; print times in seconds and memory in MiB."""
    start = time.perf_counter()
    import numpy as np
    import torch

    from jaxgrad import parity
    from jaxgrad.runtime import cache
    from parity_tests import jax_models, torch_models

    cache.turn_on()
    imported = time.perf_counter()
    x = np.random.default_rng(0).standard_normal((4, 16, 64))
    model = torch_models.encoder(64, 4, 4, 0.1, 256)
    golden = parity.record(model, {"src": x}, train=True)
    recorded = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    checker = parity.Checker(
        lambda p, src: jax_models.encoder(p, src, bug, layers=4, heads=4), ignore="layers.?"
    )
    verdict = str(checker(golden).verdict)
    checked = time.perf_counter()
    checker(golden)
    again = time.perf_counter()
    found = {
        "import": imported - start,
        "record": recorded - imported,
        "check": checked - recorded,
        "again": again - checked,
        "verdict": verdict,
        "added": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "torch": torch.__version__,
        "golden": sum(a.nbytes for a in golden.arrays.values()) / 2**20,
    }
    print(json.dumps(found))


def run(bug, folder):
    """Run once in a fresh process that keeps its compiled programs in a folder."""
    env = os.environ | {"JAXGRAD_CACHE": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, __file__, "--once", bug],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once is not None:
        once(options.once)
        return
    print(
        "| port | cache | import | record | check | record + check | aim | of the aim | check "
        "again | memory of the check |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for port, bug in (("right", ""), ("wrong: eps of layers.1.norm2", "eps of layers.1.norm2")):
        with tempfile.TemporaryDirectory() as folder:
            for kind in ("cold", "warm"):
                t = run(bug, folder)
                both = t["record"] + t["check"]
                cells = [
                    port,
                    kind,
                    *(f"{t[k]:.1f} s" for k in ("import", "record", "check")),
                    f"{both:.1f} s",
                    f"{AIMS[kind]:.0f} s",
                ]
                cells += [
                    f"{both / AIMS[kind]:.0%}",
                    f"{t['again']:.1f} s",
                    f"{t['added']:.0f} MiB",
                ]
                print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\nThe golden holds {t['golden']:.1f} MiB; torch {t['torch']}.")


if __name__ == "__main__":
    main()
