"""Public security: the room of the police."""
