"""Officers: the people who act through systems, known by tokens that their agency's identity provider signs."""
