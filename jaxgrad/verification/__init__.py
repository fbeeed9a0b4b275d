"""``verify``: which loss goes to which engine, and what their findings add up to.

`applicable.py` holds the evidence that applies to a claim, `reconcile.py` the checks that take
verdicts back in the light of other evidence, and `verify.py` the function that people call.
"""
