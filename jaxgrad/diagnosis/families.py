"""The order in which hypotheses are tried.

A family is a generator of hypotheses about one array of the gradient. Simple families name the
mistake, and come first. The search for one edit follows. Weak families come last: they tell where
or when it is wrong, and not how.
"""

from collections.abc import Callable, Iterator

from jaxgrad.diagnosis import (
    changes,
    conventions,
    low_rank,
    moments,
    omissions,
    patterns,
    proportions,
    regions,
    substitutions,
    values,
)
from jaxgrad.diagnosis.hypothesis import Hypothesis
from jaxgrad.diagnosis.proportions import Cases
from jaxgrad.diagnosis.search import Stage

Family = Callable[[str, Cases], Iterator[Hypothesis]]

SIMPLE: tuple[Family, ...] = (
    conventions.own_rule,
    proportions.factor,
    proportions.rearranged,
    substitutions.masks,
    substitutions.inputs,
    conventions.kinks,
    patterns.local,
    patterns.along_an_axis,
    proportions.terms,
    low_rank.outer_products,
    moments.moments,
)
"""Hypotheses about one array of the gradient that name the mistake, the simplest first."""

WEAK: tuple[Family, ...] = (
    patterns.at_a_value,
    regions.regions,
    proportions.unnamed_factor,
    lambda label, cases: patterns.local(label, cases, named=False),
    low_rank.same_along_an_axis,
    low_rank.rank_one,
)
"""Hypotheses that tell where or when it is wrong, and not how."""


EDITS: tuple[Stage, ...] = (
    changes.factors_solved,
    changes.other_forms,
    values.fixed_terms,
    values.other_values,
    values.more_factors,
    values.matrix_factors,
    values.more_terms,
)
"""Edits of the closed form, simple ones first."""

OMISSIONS: tuple[Stage, ...] = (omissions.left_out, omissions.sums, omissions.factors_left_out)
"""Edits of the true gradient."""
