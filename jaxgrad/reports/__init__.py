"""Findings, reports, and how they are shown.

`finding.py` holds verdicts and findings, as data alone, and `pictures.py` the data of their
figures. `layout.py`, `table.py`, `assertion.py` and `html/` show reports; `diff.py` compares two
runs. `report.py` lies on top: a report can print itself.

`finding.py` holds verdicts and findings, as data alone, and `pictures.py` the data of their
figures. `layout.py`, `table.py`, `assertion.py` and `html/` show reports; `diff.py` compares two
runs. `report.py` lies on top: a report can print itself.
"""
