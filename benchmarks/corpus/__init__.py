"""Right and wrong claims of many kinds, by which verdicts are measured; see `benchmarks.field`."""

import importlib

from benchmarks.corpus.statement import CLAIMS, Claim

FAMILIES = (
    "sizes",
    "branches",
    "rules",
    "points",
    "numbers",
    "loops",
    "expectations",
    "matrices",
    "likelihoods",
    "layers",
    "geometry",
    "heavy",
)

for family in FAMILIES:
    importlib.import_module(f"benchmarks.corpus.{family}")

__all__ = ["CLAIMS", "FAMILIES", "Claim"]
