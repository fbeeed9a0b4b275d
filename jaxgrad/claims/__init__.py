"""Claims: a loss, its claimed gradient, shapes and domains; and whose error an exception is.

`derivation.py` holds the claim itself, `shapes.py` and `domains.py` what its inputs are, and
`custom_rules.py` claims on differentiation rules. `labels.py` lists the values of discrete inputs,
and `membership.py` checks the user's data. `summary.py` and `describe.py` put a claim into words,
and `user_errors.py` explains exceptions.
"""
