"""What a diagnosis and a page cost.

Every wrong variant of the catalogue is diagnosed, and the catalogue's page is written.

python -m benchmarks.reports
"""

import functools
import statistics
import time

import jax

import jaxgrad as jg
from jaxgrad.diagnosis import diagnose
from jaxgrad.evidence.problem import Problem
from jaxgrad.reports.html import page
from jaxgrad.verification.applicable import EVIDENCE, loss_of_mask
from tests.wrong_variants import CASES


def diagnosed(claim):
    """Seconds of a diagnosis, as it follows the certificate, and how many arrays it names."""
    with jax.enable_x64(True):
        problem = Problem(claim, 0)
        EVIDENCE["certificate"](problem)
        loss_of = functools.lru_cache(None)(lambda sizes: loss_of_mask(problem, dict(sizes)))
        begin = time.perf_counter()
        found = diagnose(problem, problem.wrt, lambda sizes: loss_of(tuple(sizes.items())))
        return time.perf_counter() - begin, len(found)


def main():
    times, named = zip(*[diagnosed(claim) for _, _, claim in CASES], strict=True)
    ordered = sorted(times)
    print(
        f"{len(times)} wrong variants, of {sum(map(bool, named))} something is said; a diagnosis "
        f"takes"
    )
    print(
        f"{statistics.median(times):.2f} s in the median, {ordered[int(0.99 * len(ordered))]:.2f} "
        f"s at most in 99 of 100,",
        end=" ",
    )
    slowest = CASES[times.index(ordered[-1])]
    print(f"{ordered[-1]:.2f} s at most ({slowest[0]}: {slowest[1]})")
    for (name, label, _), count in zip(CASES, named, strict=True):
        if not count:
            print(f"  nothing is said of {name}: {label}")
    reports = [jg.verify(claim) for claim in jg.catalog.all()]
    for what in ("first", "again"):
        begin = time.perf_counter()
        text = page.render(reports)
        print(
            f"page of the catalogue, {what}: {len(text.encode()) / 1e6:.2f} MB in "
            f"{time.perf_counter() - begin:.2f} s"
        )


if __name__ == "__main__":
    main()
