"""Arithmetic in finite fields, in which `jaxgrad.certify` runs two functions to prove that they are one.

`fields` and `rotations` are the fields, `values` and `domain` what a program computes on there, `arithmetic`, `functions`, `arrays`,
`algebra` and `choices` the rules of its operations, `identity` and `search` the comparison and the way to a proof.
"""
