"""Jurisdiction packs: purposes, legal bases and statutory numbers of a place, as versioned data."""

from services.kit.jurisdiction.pack import Basis, Jurisdiction, Mark, Purpose, load, read

__all__ = ["Basis", "Jurisdiction", "Mark", "Purpose", "load", "read"]
