"""What is measured, part by part; each gives its results as plain data."""
