"""Quality: the room of inspection and quarantine."""
