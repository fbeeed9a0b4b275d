"""How the command's options are read: numbers, sizes and names of evidence."""

from typing import Any

import click


class Whole(click.ParamType):
    """A whole number, also written as 1e6 or 2**20."""

    name = "number"

    def __init__(self, least: int, most: int) -> None:
        """Take numbers from `least` to `most`."""
        self.least, self.most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, or fail."""
        if isinstance(value, int):
            return value
        text = str(value).strip()
        try:
            base, power, exponent = text.partition("**")
            number = (
                int(base) ** min(int(exponent), 64)
                if power
                else float(text)
                if "e" in text.lower()
                else int(text)
            )
            whole = int(number)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no whole number; write it as 65536, 1e6 or 2**20", param, ctx)
        if whole != number or not self.least <= whole <= self.most:
            self.fail(f"{value} is not a whole number from {self.least} to {self.most}", param, ctx)
        return whole


def read_sizes(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, int] | None:
    """Return the sizes of options such as ``n=5,m=7``."""
    sizes: dict[str, int] = {}
    for item in ",".join(values).split(",") if values else ():
        name, equals, size = item.partition("=")
        if not (equals and name.strip() and size.strip().isdecimal() and int(size) > 0):
            raise click.BadParameter(f"{item!r} is no size; write sizes as n=5,m=7", ctx, param)
        sizes[name.strip()] = int(size)
    return sizes or None


def read_evidence(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...] | None:
    """Return the names of evidence of options such as ``autodiff,differences``."""
    if not values:
        return None
    import difflib

    from jaxgrad.verification.applicable import EVIDENCE

    names = [name.strip().replace("-", "_") for name in ",".join(values).split(",")]
    for name in names:
        if name not in EVIDENCE:
            near = difflib.get_close_matches(name, EVIDENCE, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise click.BadParameter(
                f"{name!r} is no evidence; {hint}it is one or more of {', '.join(EVIDENCE)}",
                ctx,
                param,
            )
    return tuple(dict.fromkeys(names))
