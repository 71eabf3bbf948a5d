"""How well something is kept: counted where it is wanted, read by whoever scrapes."""


class Uses:
    """How often something was wanted, and how often it had to be made for that.

    Two additions to plain numbers: it stands in the way of every call.
    """

    __slots__ = ("made", "wanted")

    def __init__(self) -> None:
        self.wanted = 0
        self.made = 0
