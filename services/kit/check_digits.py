"""Check digits of identifier schemes: from an identifier without its check digit, the check digit it should have.

Written from the standards. The callers, `services.kit.identifiers`, have checked the form already: what is not of
the scheme's alphabet raises `KeyError` or `ValueError` here.
"""

from operator import mul

USCC_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
"""GB 32100-2015, table 3: 31 characters, without I O S V Z."""
_NONE = 0xFF


def _values(alphabet: str) -> bytes:
    """Make the table that turns characters into their places in an alphabet, all others into `_NONE`."""
    return bytes(alphabet.find(chr(code)) & _NONE for code in range(256))


_USCC_VALUES = _values(USCC_ALPHABET)
_USCC_WEIGHTS = tuple(pow(3, i, 31) for i in range(17))


def uscc(first17: str) -> str:
    """Work out the last character of a unified social credit code (GB 32100-2015, 5.6)."""
    return USCC_ALPHABET[-_weighed(first17, _USCC_VALUES, _USCC_WEIGHTS) % 31]


_ORG_VALUES = _values("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_ORG_WEIGHTS = (3, 7, 9, 10, 5, 8, 4, 2)


def org_code(first8: str) -> str:
    """Work out the last character of an organisation code (GB 11714)."""
    return "0123456789X0"[11 - _weighed(first8, _ORG_VALUES, _ORG_WEIGHTS) % 11]


def _weighed(text: str, values: bytes, weights: tuple[int, ...]) -> int:
    """Add up the characters' values by their weights: every question about an enterprise comes through here."""
    found = text.encode("ascii").translate(values)
    if len(found) != len(weights) or _NONE in found:
        raise ValueError(f"{len(weights)} characters of the alphabet are needed")
    return sum(map(mul, found, weights))


def lei(first18: str) -> str:
    """Work out the last two digits of a legal entity identifier (ISO 17442, by ISO 7064 mod 97-10)."""
    digits = "".join(str(int(c, 36)) for c in first18)
    return f"{98 - int(digits) * 100 % 97:02d}"


# ISO 6346 gives letters the values from 10 on, leaving out multiples of 11.
_ISO6346_VALUE = dict(
    zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", (n for n in range(39) if n < 10 or n % 11), strict=True)
)


def iso6346(first10: str) -> str:
    """Work out the last digit of a freight container number."""
    return str(sum(_ISO6346_VALUE[c] << i for i, c in enumerate(first10)) % 11 % 10)


_RFC_VALUE = {c: i for i, c in enumerate("0123456789ABCDEFGHIJKLMN&OPQRSTUVWXYZ Ñ")}


def rfc(first: str) -> str:
    """Work out the last character of a Mexican taxpayer code, of a legal (11 before it) or natural person (12)."""
    total = sum(_RFC_VALUE[c] * (13 - i) for i, c in enumerate(first.rjust(12)))
    return "0123456789A0"[-total % 11]


def imo(first6: str) -> str:
    """Work out the last digit of a ship's IMO number."""
    return str(sum(int(c) * (7 - i) for i, c in enumerate(first6)) % 10)


def gtin(first: str) -> str:
    """Work out the last digit of a trade item number of any length."""
    return str(-sum(int(c) * (3, 1)[i % 2] for i, c in enumerate(first.rjust(13, "0"))) % 10)
