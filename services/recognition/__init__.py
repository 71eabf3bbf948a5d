"""Mutual recognition: procedures, cases, statutory clocks, results that travel, and who recognises them."""
