"""Properties here parse policies for every example: how long one takes says nothing on a busy machine."""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None, print_blob=True)
settings.load_profile("unhurried")
