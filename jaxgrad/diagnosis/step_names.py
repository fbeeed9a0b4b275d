"""How diagnoses name the steps of a program and their operands.

A step is named by its expression in the user's code where that is known, and by its operation
elsewhere.
"""

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
    "integer_pow": ("power", "base"),
    "pow": ("power", "operand"),
    "neg": ("negation", "argument"),
    "broadcast_in_dim": ("broadcast", "argument"),
}
SIGNS = {"gt": ">", "lt": "<", "ge": "≥", "le": "≤", "eq": "=", "ne": "≠"}
_COUNTED = ("first", "second", "third", "fourth")


def operation(step: Step) -> str:
    """Return the name of a step's operation: "the sum", or its primitive, such as `rev`."""
    return f"the {_OPERATIONS[step.name][0]}" if step.name in _OPERATIONS else f"`{step.name}`"


def ordinal(j: int, step: Step) -> str:
    """Return the name of an operand of a step: "the second term of the difference"."""
    if step.name == "div":
        return f"the {'numerator' if j == 0 else 'denominator'} of the quotient"
    if step.name in SIGNS:
        return f"the {'left' if j == 0 else 'right'} side of {SIGNS[step.name]}"
    if step.name == "select_n" and len(step.inputs) == 3:
        return ("the condition", "the value for false", "the value for true")[j]
    operand = _OPERATIONS.get(step.name, ("", "operand"))[1]
    if len(step.inputs) > 1:
        operand = f"{_COUNTED[j] if j < len(_COUNTED) else f'{j + 1}th'} {operand}"
    return f"the {operand} of {operation(step)}"


def value_of(step: Step) -> str:
    """Return the name of a step's result: its expression in the user's code where it is known."""
    where, text = step.place
    return f"`{text}`" if text else f"{operation(step)} {f'of {where}' if where else 'elsewhere'}"
