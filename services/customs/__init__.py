"""Customs: the room of customs."""
