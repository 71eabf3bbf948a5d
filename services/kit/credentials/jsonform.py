"""SD-JWT in the JSON form of JWS (RFC 9901 section 8), turned into the compact form that everything else reads."""

from collections.abc import Mapping
from typing import Any

from services.kit.credentials import strict
from services.kit.credentials.sdjwt import MAX_DISCLOSURES
from services.kit.credentials.signed import malformed

_SIGNATURES = 8
"""Most signatures of one object."""


def compact(form: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the compact form of a flattened or general JSON form: one text for each signature.

    Disclosures and key binding stand with the first signature, and only its text carries the key binding, which is
    on that text. Header parameters outside the signature are left out: nothing here relies on what nobody signed.
    Raises `InvalidArgument` RESULT_MALFORMED.
    """
    flat = "signatures" not in form
    entries: Any = [form] if flat else form["signatures"]
    if not strict.is_array(entries) or not 0 < len(entries) <= _SIGNATURES or (not flat and "signature" in form):
        raise malformed("neither the flattened nor the general form")
    if not all(strict.is_object(entry) for entry in entries):
        raise malformed("signatures are objects")
    headers = [_object(entry.get("header", {})) for entry in entries]
    if any("disclosures" in header or "kb_jwt" in header for header in headers[1:]):
        raise malformed("disclosures and key binding stand with the first signature")
    found: Any = headers[0].get("disclosures", [])
    if not strict.is_array(found) or len(found) > MAX_DISCLOSURES:
        raise malformed("disclosures are an array of texts")
    disclosures = [_part(one) for one in found]
    binding: Any = headers[0].get("kb_jwt", "")
    if not isinstance(binding, str) or "~" in binding:
        raise malformed("the key binding is a token")
    tokens = [
        ".".join((_part(entry.get("protected")), _part(form.get("payload")), _part(entry.get("signature"))))
        for entry in entries
    ]
    return tuple("~".join((token, *disclosures, "" if number else binding)) for number, token in enumerate(tokens))


def _object(value: Any) -> dict[str, Any]:
    if not strict.is_object(value):
        raise malformed("a header is an object")
    return value


def _part(value: Any) -> str:
    if not isinstance(value, str) or not value or "~" in value or "." in value:
        raise malformed("its parts are base64url")
    return value
