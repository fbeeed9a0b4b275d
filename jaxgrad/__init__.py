"""Know whether a gradient is right."""

from jaxgrad import masks
from jaxgrad.report import Finding, Report, Verdict

__all__ = ["Finding", "Report", "Verdict", "masks"]
