"""Authorizations where they are relied on: tickets, the state of each, and what a question under one may have."""
