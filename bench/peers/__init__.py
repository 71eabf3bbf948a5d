"""What others would build in our place, small and pinned, to measure beside it."""
