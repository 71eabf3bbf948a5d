"""Taxation: the room of the tax agency."""
