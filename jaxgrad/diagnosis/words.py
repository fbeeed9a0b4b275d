"""Names of operations and of their operands, as they are said."""

from jaxgrad.diagnosis.flat import Step

_OPERATIONS = {
    "add": ("sum", "term"),
    "add_any": ("sum", "term"),
    "sub": ("difference", "term"),
    "mul": ("product", "factor"),
    "dot_general": ("matrix product", "factor"),
    "div": ("quotient", "operand"),
    "reduce_sum": ("sum", "argument"),
    "transpose": ("transpose", "argument"),
    "select_n": ("choice", "case"),
    "integer_pow": ("power", "base"),
    "pow": ("power", "operand"),
    "neg": ("negation", "argument"),
    "broadcast_in_dim": ("repetition", "argument"),
}
_COUNTED = ("first", "second", "third", "fourth")


def operation(step: Step) -> str:
    """Say what a step does: "the sum"."""
    return f"the {_OPERATIONS.get(step.name, (f'`{step.name}`', ''))[0]}"


def ordinal(j: int, step: Step) -> str:
    """Say which operand of a step is meant: "the second term of the difference"."""
    name, operand = _OPERATIONS.get(step.name, (f"`{step.name}`", "operand"))
    if step.name == "div":
        return f"the {'numerator' if j == 0 else 'denominator'} of the quotient"
    if step.name == "select_n" and len(step.inputs) == 3:
        return (
            "the case of the choice where the condition holds"
            if j == 2
            else "the other case of the choice"
        )
    if len(step.inputs) == 1:
        return f"the {operand} of the {name}"
    return f"the {_COUNTED[j] if j < len(_COUNTED) else f'{j + 1}th'} {operand} of the {name}"


def value_of(step: Step) -> str:
    """Say what a step computed: the expression that stands there."""
    where, text = step.place
    return (
        f"`{text}`"
        if text
        else f"{operation(step)} of {where}"
        if where
        else f"{operation(step)} that is computed elsewhere"
    )
