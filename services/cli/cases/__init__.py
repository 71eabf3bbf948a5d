"""The commands of `hutong case`, one module each."""
