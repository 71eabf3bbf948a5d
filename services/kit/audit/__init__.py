"""Auditing a node: decisions drawn from its log, proven, and decided once more from what they rested on.

Everything here computes and asks nothing of the world: who audits brings decisions, texts and keys.
"""
