"""Statements that travel: signed, disclosed in part, verified by anyone who has the issuer's published keys.

`sdjwt` is the form (RFC 9901), `keys` are the signing keys and how they are published, `status` tells later on what
has become of a statement (Token Status List), `results` is the profile for results of approval stages.
"""
