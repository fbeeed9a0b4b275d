"""What a wrong gradient is wrong by.

The closed form C and the true gradient G are evaluated at several sizes and draws, and hypotheses
are tried on them, the simplest first: a named factor, a transpose, another input's gradient, a
missing variance, a swapped input, a wrong moment of the mask, a single place, a region of the
domain, and last one edit of one step of the closed form. The first that explains the whole error in
every case, and in one more that no search has seen, is the diagnosis. Where none does, there is no
diagnosis.

    findings        findings with their diagnoses: the way in
    trials          hypotheses tried on an array, one after the other
    families        the order in which they are tried
    hypothesis      what a hypothesis is, and how it is tested
    cases           closed form and truth side by side
    symbols         sizes and scalars by which a factor is named
    factors         numbers by name
    exact           factors that certificates know without rounding
    proportions     a factor, a transpose, another gradient, a term
    low_rank        outer products, and terms that are the same along an axis
    patterns        places in an array, rows and columns, values of labels
    substitutions   the gradient of another problem
    regions         right on a part of the domain alone
    moments         the mask's mean and second moment
    flat, search    programs as lists of steps, and the search for one edit
    changes, values edits of the closed form
    omissions       parts of the true gradient that are left out
    sampled         what sampling alone can tell
    conventions     one-sided derivatives at kinks, and the loss's own rules
    cancellation    digits lost in float32
"""

from jaxgrad.diagnosis.cancellation import digits_lost
from jaxgrad.diagnosis.findings import explain
from jaxgrad.diagnosis.hypothesis import Diagnosis
from jaxgrad.diagnosis.trials import diagnose

__all__ = ["Diagnosis", "diagnose", "digits_lost", "explain"]
