"""The examples of RFC 9901, as the RFC prints them, with the line breaks of its text taken out.

Copyright (c) 2025 IETF Trust and the persons identified as authors of the code; Code Components under the Revised BSD
License (https://trustee.ietf.org/license-info). Each is kept as its token and its disclosures; what the RFC shows as
one string is put together from them.
"""

from dataclasses import dataclass
from typing import Any, Final

ISSUER_KEY: Final[dict[str, str | list[str]]] = {
    "kty": "EC",
    "crv": "P-256",
    "x": "b28d4MwZMjw8-00CG4xfnn9SLMVMM19SlqZpVb_uNtQ",
    "y": "Xv5zWwuoaTgdS6hV43yI6gBwTnjukmFQQnJ_kCxzqk8",
}
"""Appendix A.5: the key that all examples of the RFC are signed with."""

HOLDER_KEY: Final[dict[str, str | list[str]]] = {
    "kty": "EC",
    "crv": "P-256",
    "x": "TCAER19Zvu3OHF4j4W4vfSVoHIP1ILilDls7vCeGemc",
    "y": "ZxjiWWbZMQGHVWKVQ4hbSIirsVfuecCE6t4jT9F2HZQ",
}
"""The holder's key, as it stands in `cnf`."""

NONCE: Final = "1234567890"
AUDIENCE: Final = "https://verifier.example.org"
BOUND_AT: Final = 1748537244
"""`iat` of every key binding token in the RFC."""


@dataclass(frozen=True)
class Example:
    """A presentation of the RFC, and the processed payload that the RFC prints for it."""

    typ: str
    token: str
    disclosures: tuple[str, ...]
    processed: dict[str, Any]
    binding: str = ""

    @property
    def text(self) -> str:
        """The one string."""
        return "~".join((self.token, *self.disclosures, self.binding))


KB: Final = "eyJhbGciOiAiRVMyNTYiLCAidHlwIjogImtiK2p3dCJ9."
PLAIN: Final = "eyJhbGciOiAiRVMyNTYiLCAidHlwIjogImV4YW1wbGUrc2Qtand0In0."
VC: Final = "eyJhbGciOiAiRVMyNTYiLCAidHlwIjogImRjK3NkLWp3dCJ9."
CNF: Final = {"jwk": HOLDER_KEY}

S5_TOKEN: Final = (
    PLAIN + "eyJfc2QiOiBbIkNyUWU3UzVrcUJBSHQtbk1ZWGdjNmJkdDJTSDVhVFkxc1VfTS1QZ2tqUEkiLCAiSnpZ"
    "akg0c3ZsaUgwUjNQeUVNZmVadTZKdDY5dTVxZWhabzdGN0VQWWxTRSIsICJQb3JGYnBLdVZ1Nnh5bUphZ3ZrRnNGWEFiUm9jMkpHbEFVQTJC"
    "QTRvN2NJIiwgIlRHZjRvTGJnd2Q1SlFhSHlLVlFaVTlVZEdFMHc1cnREc3JaemZVYW9tTG8iLCAiWFFfM2tQS3QxWHlYN0tBTmtxVlI2eVoy"
    "VmE1TnJQSXZQWWJ5TXZSS0JNTSIsICJYekZyendzY002R242Q0pEYzZ2Vks4QmtNbmZHOHZPU0tmcFBJWmRBZmRFIiwgImdiT3NJNEVkcTJ4"
    "Mkt3LXc1d1BFemFrb2I5aFYxY1JEMEFUTjNvUUw5Sk0iLCAianN1OXlWdWx3UVFsaEZsTV8zSmx6TWFTRnpnbGhRRzBEcGZheVF3TFVLNCJd"
    "LCAiaXNzIjogImh0dHBzOi8vaXNzdWVyLmV4YW1wbGUuY29tIiwgImlhdCI6IDE2ODMwMDAwMDAsICJleHAiOiAxODgzMDAwMDAwLCAic3Vi"
    "IjogInVzZXJfNDIiLCAibmF0aW9uYWxpdGllcyI6IFt7Ii4uLiI6ICJwRm5kamtaX1ZDem15VGE2VWpsWm8zZGgta284YUlLUWM5RGxHemhh"
    "VllvIn0sIHsiLi4uIjogIjdDZjZKa1B1ZHJ5M2xjYndIZ2VaOGtoQXYxVTFPU2xlclAwVmtCSnJXWjAifV0sICJfc2RfYWxnIjogInNoYS0y"
    "NTYiLCAiY25mIjogeyJqd2siOiB7Imt0eSI6ICJFQyIsICJjcnYiOiAiUC0yNTYiLCAieCI6ICJUQ0FFUjE5WnZ1M09IRjRqNFc0dmZTVm9I"
    "SVAxSUxpbERsczd2Q2VHZW1jIiwgInkiOiAiWnhqaVdXYlpNUUdIVldLVlE0aGJTSWlyc1ZmdWVjQ0U2dDRqVDlGMkhaUSJ9fX0."
    "MczwjBFGtzf-6WMT-hIvYbkb11NrV1WMO-jTijpMPNbswNzZ87wY2uHz-CXo6R04b7jYrpj9mNRAvVssXou1iw"
)
S5_GIVEN_NAME: Final = "WyIyR0xDNDJzS1F2ZUNmR2ZyeU5STjl3IiwgImdpdmVuX25hbWUiLCAiSm9obiJd"
S5_FAMILY_NAME: Final = "WyJlbHVWNU9nM2dTTklJOEVZbnN4QV9BIiwgImZhbWlseV9uYW1lIiwgIkRvZSJd"
S5_EMAIL: Final = "WyI2SWo3dE0tYTVpVlBHYm9TNXRtdlZBIiwgImVtYWlsIiwgImpvaG5kb2VAZXhhbXBsZS5jb20iXQ"
S5_PHONE: Final = "WyJlSThaV205UW5LUHBOUGVOZW5IZGhRIiwgInBob25lX251bWJlciIsICIrMS0yMDItNTU1LTAxMDEiXQ"
S5_PHONE_VERIFIED: Final = "WyJRZ19PNjR6cUF4ZTQxMmExMDhpcm9BIiwgInBob25lX251bWJlcl92ZXJpZmllZCIsIHRydWVd"
S5_ADDRESS: Final = (
    "WyJBSngtMDk1VlBycFR0TjRRTU9xUk9BIiwgImFkZHJlc3MiLCB7InN0cmVldF9hZGRyZXNzIjogIjEyMyBNYWluIFN0IiwgImxvY2FsaXR5"
    "IjogIkFueXRvd24iLCAicmVnaW9uIjogIkFueXN0YXRlIiwgImNvdW50cnkiOiAiVVMifV0"
)
S5_BIRTHDATE: Final = "WyJQYzMzSk0yTGNoY1VfbEhnZ3ZfdWZRIiwgImJpcnRoZGF0ZSIsICIxOTQwLTAxLTAxIl0"
S5_UPDATED: Final = "WyJHMDJOU3JRZmpGWFE3SW8wOXN5YWpBIiwgInVwZGF0ZWRfYXQiLCAxNTcwMDAwMDAwXQ"
S5_US: Final = "WyJsa2x4RjVqTVlsR1RQVW92TU5JdkNBIiwgIlVTIl0"
S5_DE: Final = "WyJuUHVvUW5rUkZxM0JJZUFtN0FuWEZBIiwgIkRFIl0"

_S5_OPEN: Final = {"iss": "https://issuer.example.com", "iat": 1683000000, "exp": 1883000000, "sub": "user_42"}
_S5_ADDRESS_VALUE: Final = {
    "street_address": "123 Main St",
    "locality": "Anytown",
    "region": "Anystate",
    "country": "US",
}

S5_DIGESTS: Final = {
    S5_GIVEN_NAME: "jsu9yVulwQQlhFlM_3JlzMaSFzglhQG0DpfayQwLUK4",
    S5_FAMILY_NAME: "TGf4oLbgwd5JQaHyKVQZU9UdGE0w5rtDsrZzfUaomLo",
    S5_EMAIL: "JzYjH4svliH0R3PyEMfeZu6Jt69u5qehZo7F7EPYlSE",
    S5_PHONE: "PorFbpKuVu6xymJagvkFsFXAbRoc2JGlAUA2BA4o7cI",
    S5_PHONE_VERIFIED: "XQ_3kPKt1XyX7KANkqVR6yZ2Va5NrPIvPYbyMvRKBMM",
    S5_ADDRESS: "XzFrzwscM6Gn6CJDc6vVK8BkMnfG8vOSKfpPIZdAfdE",
    S5_BIRTHDATE: "gbOsI4Edq2x2Kw-w5wPEzakob9hV1cRD0ATN3oQL9JM",
    S5_UPDATED: "CrQe7S5kqBAHt-nMYXgc6bdt2SH5aTY1sU_M-PgkjPI",
    S5_US: "pFndjkZ_VCzmyTa6UjlZo3dh-ko8aIKQc9DlGzhaVYo",
    S5_DE: "7Cf6JkPudry3lcbwHgeZ8khAv1U1OSlerP0VkBJrWZ0",
}
"""Section 5.1: every disclosure and the digest the RFC prints for it."""

S51_ISSUED: Final = Example(
    "example+sd-jwt",
    S5_TOKEN,
    tuple(S5_DIGESTS),
    {
        **_S5_OPEN,
        "cnf": CNF,
        "given_name": "John",
        "family_name": "Doe",
        "email": "johndoe@example.com",
        "phone_number": "+1-202-555-0101",
        "phone_number_verified": True,
        "address": _S5_ADDRESS_VALUE,
        "birthdate": "1940-01-01",
        "updated_at": 1570000000,
        "nationalities": ["US", "DE"],
    },
)

S52_PRESENTED: Final = Example(
    "example+sd-jwt",
    S5_TOKEN,
    (S5_FAMILY_NAME, S5_ADDRESS, S5_GIVEN_NAME, S5_US),
    {
        **_S5_OPEN,
        "nationalities": ["US"],
        "cnf": CNF,
        "family_name": "Doe",
        "address": _S5_ADDRESS_VALUE,
        "given_name": "John",
    },
    KB + "eyJub25jZSI6ICIxMjM0NTY3ODkwIiwgImF1ZCI6ICJodHRwczovL3ZlcmlmaWVyLmV4YW1wbGUub3JnIiwgImlhdCI6IDE3NDg1MzcyNDQs"
    "ICJzZF9oYXNoIjogIjBfQWYtMkItRWhMV1g1eWRoX3cyeHp3bU82aU02NkJfMlFDRWFuSTRmVVkifQ."
    "T3SIus2OidNl41nmVkTZVCKKhOAX97aOldMyHFiYjHm261eLiJ1YiuONFiMN8QlCmYzDlBLAdPvrXh52KaLgUQ",
)

S61_PAYLOAD: Final[dict[str, Any]] = {
    "_sd": ["fOBUSQvo46yQO-wRwXBcGqvnbKIueISEL961_Sjd4do"],
    "iss": "https://issuer.example.com",
    "iat": 1683000000,
    "exp": 1883000000,
    "sub": "6c5c0a49-b589-431d-bae7-219122a9ec2c",
    "_sd_alg": "sha-256",
}
S61_ADDRESS: Final = (
    "WyIyR0xDNDJzS1F2ZUNmR2ZyeU5STjl3IiwgImFkZHJlc3MiLCB7InN0cmVldF9hZGRyZXNzIjogIlNjaHVsc3RyLiAxMiIsICJsb2NhbGl0"
    "eSI6ICJTY2h1bHBmb3J0YSIsICJyZWdpb24iOiAiU2FjaHNlbi1BbmhhbHQiLCAiY291bnRyeSI6ICJERSJ9XQ"
)
S62_STREET: Final = "WyIyR0xDNDJzS1F2ZUNmR2ZyeU5STjl3IiwgInN0cmVldF9hZGRyZXNzIiwgIlNjaHVsc3RyLiAxMiJd"
S62_LOCALITY: Final = "WyJlbHVWNU9nM2dTTklJOEVZbnN4QV9BIiwgImxvY2FsaXR5IiwgIlNjaHVscGZvcnRhIl0"
S62_REGION: Final = "WyI2SWo3dE0tYTVpVlBHYm9TNXRtdlZBIiwgInJlZ2lvbiIsICJTYWNoc2VuLUFuaGFsdCJd"
S62_COUNTRY: Final = "WyJlSThaV205UW5LUHBOUGVOZW5IZGhRIiwgImNvdW50cnkiLCAiREUiXQ"
S62_PAYLOAD: Final[dict[str, Any]] = {
    **{name: value for name, value in S61_PAYLOAD.items() if name != "_sd"},
    "address": {
        "_sd": [
            "6vh9bq-zS4GKM_7GpggVbYzzu6oOGXrmNVGPHP75Ud0",
            "9gjVuXtdFROCgRrtNcGUXmF65rdezi_6Er_j76kmYyM",
            "KURDPh4ZC19-3tiz-Df39V8eidy1oV3a3H1Da2N0g88",
            "WN9r9dCBJ8HTCsS2jKASxTjEyW5m5x65_Z_2ro2jfXM",
        ]
    },
}
S62_PAYLOAD_COUNTRY_OPEN: Final[dict[str, Any]] = {
    **S62_PAYLOAD,
    "address": {"_sd": S62_PAYLOAD["address"]["_sd"][:3], "country": "DE"},
}
S63_PAYLOAD: Final[dict[str, Any]] = {**S61_PAYLOAD, "_sd": ["HvrKX6fPV0v9K_yCVFBiLFHsMaxcD_114Em6VT8x1lg"]}
S63_ADDRESS: Final = (
    "WyJRZ19PNjR6cUF4ZTQxMmExMDhpcm9BIiwgImFkZHJlc3MiLCB7Il9zZCI6IFsiNnZoOWJxLXpTNEdLTV83R3BnZ1ZiWXp6dTZvT0dYcm1O"
    "VkdQSFA3NVVkMCIsICI5Z2pWdVh0ZEZST0NnUnJ0TmNHVVhtRjY1cmRlemlfNkVyX2o3NmttWXlNIiwgIktVUkRQaDRaQzE5LTN0aXotRGYz"
    "OVY4ZWlkeTFvVjNhM0gxRGEyTjBnODgiLCAiV045cjlkQ0JKOEhUQ3NTMmpLQVN4VGpFeVc1bTV4NjVfWl8ycm8yamZYTSJdfV0"
)
S6_CLAIMS: Final[dict[str, Any]] = {
    "iss": "https://issuer.example.com",
    "iat": 1683000000,
    "exp": 1883000000,
    "sub": "6c5c0a49-b589-431d-bae7-219122a9ec2c",
    "address": {
        "street_address": "Schulstr. 12",
        "locality": "Schulpforta",
        "region": "Sachsen-Anhalt",
        "country": "DE",
    },
}
"""What all three forms of section 6 say, everything disclosed."""

_S8_PROTECTED: Final = "eyJhbGciOiAiRVMyNTYiLCAidHlwIjogImV4YW1wbGUrc2Qtand0In0"
_S8_PAYLOAD: Final = (
    "eyJfc2QiOiBbIjRIQm42YUlZM1d0dUdHV1R4LXFVajZjZGs2V0JwWnlnbHRkRmF2UGE3TFkiLCAiOHNtMVFDZjAyMXBObkhBQ0k1c1A0bTRL"
    "Wmd5Tk9PQVljVGo5SE5hQzF3WSIsICJjZ0ZkaHFQbzgzeFlObEpmYWNhQ2FhN3VQOVJDUjUwVkU1UjRMQVE5aXFVIiwgImpNQ1hWei0tOWI4"
    "eDM3WWNvRGZYUWluencxd1pjY2NmRlJCQ0ZHcWRHMm8iXSwgImlzcyI6ICJodHRwczovL2lzc3Vlci5leGFtcGxlLmNvbSIsICJpYXQiOiAx"
    "NjgzMDAwMDAwLCAiZXhwIjogMTg4MzAwMDAwMCwgIl9zZF9hbGciOiAic2hhLTI1NiIsICJjbmYiOiB7Imp3ayI6IHsia3R5IjogIkVDIiwg"
    "ImNydiI6ICJQLTI1NiIsICJ4IjogIlRDQUVSMTladnUzT0hGNGo0VzR2ZlNWb0hJUDFJTGlsRGxzN3ZDZUdlbWMiLCAieSI6ICJaeGppV1di"
    "Wk1RR0hWV0tWUTRoYlNJaXJzVmZ1ZWNDRTZ0NGpUOUYySFpRIn19fQ"
)
_S8_SIGNATURE: Final = "3oOtvPxU3QdDWUmfGexVB5rWyON2f1atg5rL825bvvD1g7ywjKDKy2UHqHoH2QS4FA99JbG5qnlqFaGXFChfjQ"

S82_ISSUED: Final[dict[str, Any]] = {
    "header": {
        "disclosures": [
            "WyIyR0xDNDJzS1F2ZUNmR2ZyeU5STjl3IiwgInN1YiIsICJqb2huX2RvZV80MiJd",
            "WyJlbHVWNU9nM2dTTklJOEVZbnN4QV9BIiwgImdpdmVuX25hbWUiLCAiSm9obiJd",
            "WyI2SWo3dE0tYTVpVlBHYm9TNXRtdlZBIiwgImZhbWlseV9uYW1lIiwgIkRvZSJd",
            "WyJlSThaV205UW5LUHBOUGVOZW5IZGhRIiwgImJpcnRoZGF0ZSIsICIxOTQwLTAxLTAxIl0",
        ]
    },
    "payload": _S8_PAYLOAD,
    "protected": _S8_PROTECTED,
    "signature": _S8_SIGNATURE,
}
"""Section 8.2: flattened, as issued."""

_S8_SHOWN: Final = [S82_ISSUED["header"]["disclosures"][2], S82_ISSUED["header"]["disclosures"][1]]

S82_PRESENTED: Final[dict[str, Any]] = {
    **S82_ISSUED,
    "header": {
        "disclosures": _S8_SHOWN,
        "kb_jwt": KB
        + "eyJub25jZSI6ICIxMjM0NTY3ODkwIiwgImF1ZCI6ICJodHRwczovL3ZlcmlmaWVyLmV4YW1wbGUub3JnIiwgImlhdCI6IDE3"
        "NDg1MzcyNDQsICJzZF9oYXNoIjogIlZqdFBzZ1pwUVRSeEtKdkRwU0otblhsWktFOVo5TGdENEZ5Q3d3b05NUncifQ."
        "GrDvJ2jhYNmUvqdwVEIrxeTFEuI5qKSM7I6P95JmA6Wko-FBB5vPGQn0wvmdgjLCE2iDRh1r82zchjmABQ3V8w",
    },
}
"""Section 8.2: flattened, with key binding."""

S83_PRESENTED: Final[dict[str, Any]] = {
    "payload": _S8_PAYLOAD,
    "signatures": [
        {
            "header": {
                "disclosures": _S8_SHOWN,
                "kid": "issuer-key-1",
                "kb_jwt": KB
                + "eyJub25jZSI6ICIxMjM0NTY3ODkwIiwgImF1ZCI6ICJodHRwczovL3ZlcmlmaWVyLmV4YW1wbGUub3JnIiwgImlh"
                "dCI6IDE3NDg1MzcyNDQsICJzZF9oYXNoIjogInFieUlXUDNwaFZneEVzRFJpd2R3OVc2QkozZHhpUEx1bWNZcFBidTRFYjgifQ."
                "VyZqxaVHh1XE6M-kuax_7Laq42uFDrx17lLG2jluyKgy_PqC85z4DVpISdMZDdSANGs-0zN2N7xnM-E1Pg0sOw",
            },
            "protected": _S8_PROTECTED,
            "signature": "dz1N3uvhVHJjldyXwppmBLieTj0vuBMbzL06rnrLIuxEQb9BHoIOwGrWh-UadW4orRpEiEtjf7xyHDONMJ6tBw",
        },
        {
            "header": {"kid": "issuer-key-2"},
            "protected": _S8_PROTECTED,
            "signature": "kuXio_U88RH_-fihAPET4AFUjj0BpxsT6yddMFIr6pfHKtAe0FOJNWQxU42rfnORuNQNTgGsf2A8LjEba5inNg",
        },
    ],
}
"""Section 8.3: general, with two signatures and key binding."""
