"""The supervision room: authorizations, asked for by one officer, approved by two others, and heard of everywhere."""
