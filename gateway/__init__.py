"""The gateway: one question in, one answer out, cut twice."""
