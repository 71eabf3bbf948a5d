"""A log that nobody can quietly change: every answer and refusal of a node, as leaves of a Merkle tree (RFC 6962).

`merkle`, `tiles`, `notes` and `checkpoint` compute and ask nothing of the world; the others keep, serve and witness.
"""
