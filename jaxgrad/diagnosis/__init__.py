"""What a wrong gradient is wrong by.

The closed form C and the true gradient G are evaluated at several sizes and draws, and hypotheses
are tried on them in the order of their simplicity: a factor with a name, a transpose, another
input's gradient, a forgotten variance, a swapped or forgotten input, a wrong moment of the mask, a
single place, a region of the domain; and then changes of one step of the closed form. The first
that explains everything at every size and draw, and at one more that no search has seen, is said.
Otherwise nothing is.

    cases           closed form and truth, side by side
    factors         numbers by name
    exact           factors that certificates know without rounding
    proportions     a factor, a transpose, another gradient, a term
    low_rank        outer products, and terms that are the same along an axis
    patterns        places in an array, rows and columns, values of labels
    substitutions   the gradient of another problem
    moments         the mask's mean and second moment
    changes, edits  one step of the closed form, and what is said of it
    omissions       what is left out of the true gradient
    sampled         what sampling alone can tell
    conventions     one-sided derivatives at kinks, and rules of the loss's own
    cancellation    digits lost in float32
"""

from jaxgrad.diagnosis.cancellation import digits_lost
from jaxgrad.diagnosis.explanations import Diagnosis
from jaxgrad.diagnosis.hypotheses import diagnose, explain

__all__ = ["Diagnosis", "diagnose", "digits_lost", "explain"]
