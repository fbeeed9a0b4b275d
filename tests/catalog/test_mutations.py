"""A sample of the mutation benchmark: planted mistakes are refuted and named, and what is
equivalent is recognised.
"""

import pytest

from benchmarks import mutations
from jaxgrad import catalog
from jaxgrad.jaxprs.versions import enable_x64

SAMPLE = [
    ("mse_matvec", 4),
    ("autoencoder", 12),
    ("masked_autoencoder_patches", 17),
    ("ridge_map", 9),
]


@pytest.mark.parametrize(("name", "every"), SAMPLE)
def test_planted_mistakes_are_refuted_and_never_named_wrongly(name, every):
    with enable_x64(True):
        planted = mutations.mutants(catalog.get(name))[::every]
    judged = [(operator, mutations.judge(mutant)) for operator, _, _, mutant in planted]
    assert {result["verdict"] for _, result in judged} <= {"refuted", "equivalent"}
    refuted = [result for _, result in judged if result["verdict"] == "refuted"]
    assert len(refuted) >= 5
    assert not any(result["false"] for result in refuted)
    assert sum(result["named"] for result in refuted) >= 0.8 * len(refuted)


def test_there_are_a_thousand_mutants():
    with enable_x64(True):
        assert sum(len(mutations.mutants(claim)) for claim in catalog.all()) >= 1000
