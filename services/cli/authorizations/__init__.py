"""The commands of `hutong authorization`, a module for each kind."""
