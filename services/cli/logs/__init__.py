"""The commands of `hutong log`, a module for each kind."""
