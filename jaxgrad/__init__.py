"""Know whether a gradient is right."""

from jaxgrad import masks
from jaxgrad.certificates import Certificate, Mismatch, certify
from jaxgrad.report import Finding, Report, Verdict

__all__ = ["Certificate", "Finding", "Mismatch", "Report", "Verdict", "certify", "masks"]
