"""Commerce: the room of market regulation."""
