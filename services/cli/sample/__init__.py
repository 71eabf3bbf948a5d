"""A synthetic zone: several hundred invented firms, consistent across all five agencies, with planted oddities.

`write` makes it, `story` says whom a demonstration can ask about, `manifest` what was planted and where.
"""

from services.cli.sample.setting import Setting
from services.cli.sample.story import Story, Subject, manifest, story
from services.cli.sample.writing import path_of, render, write

__all__ = ["Setting", "Story", "Subject", "manifest", "path_of", "render", "story", "write"]
