"""What `hutong nats` does, one module for each command."""
