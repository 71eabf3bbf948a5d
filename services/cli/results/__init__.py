"""The commands of `hutong result`, each in a module of its own."""
