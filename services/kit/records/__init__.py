"""Records: what they look like, where they lie, how they come in."""
