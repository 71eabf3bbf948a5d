"""Policy: who gets which field, why, in which form, until when."""
