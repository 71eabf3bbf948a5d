"""Ways of asking, one for each protocol: all ask about the same enterprises and check what they get."""
