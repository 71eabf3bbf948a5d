"""What `hutong db` does, a module for each command."""
