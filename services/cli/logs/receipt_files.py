"""Receipts as people have them: in an answer that was saved as JSON, or by themselves."""

import json
import sys
from pathlib import Path
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from hutong.api.log.v1 import log_pb2
from services.kit.credentials import strict
from services.kit.errors import InvalidArgument, Reason

LIMIT: Final = 64 * 1024 * 1024
"""Most bytes of a saved answer."""

STANDARD_INPUT: Final = Path("-")


def read(path: Path) -> log_pb2.Receipt:
    """Read a receipt: JSON of one or of an answer that ends in one, or a serialized one.

    Raises `InvalidArgument` RECEIPT_INVALID for what holds none, or several; `OSError` for what cannot be read.
    """
    data = _bytes(path)
    try:
        receipt = _from_json(data) if data.lstrip()[:1] == b"{" else log_pb2.Receipt.FromString(data)
    except (ValueError, TypeError, AttributeError, RecursionError, json_format.ParseError, DecodeError):
        raise _none(path) from None
    if not receipt.origin or not receipt.leaf_hash:
        raise _none(path)
    return receipt


def _from_json(data: bytes) -> log_pb2.Receipt:
    found: Any = json.loads(data)
    receipt = found.get("receipt", found)
    return json_format.ParseDict(receipt, log_pb2.Receipt(), max_recursion_depth=strict.DEPTH)


def _bytes(path: Path) -> bytes:
    if path == STANDARD_INPUT:
        data = sys.stdin.buffer.read(LIMIT + 1)
    else:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise InvalidArgument(Reason.REQUEST_TOO_LARGE, f"{path} has more than {LIMIT} bytes")
    return data


def _none(path: Path) -> InvalidArgument:
    return InvalidArgument(Reason.RECEIPT_INVALID, f"{path} holds no receipt, and no answer with one")


def parse(data: bytes) -> log_pb2.Receipt:
    """Read a receipt out of a proof; raises `InvalidArgument` RECEIPT_INVALID where there is none."""
    try:
        receipt = log_pb2.Receipt.FromString(data)
    except DecodeError:
        receipt = log_pb2.Receipt()
    if not receipt.leaf_hash:
        raise InvalidArgument(Reason.RECEIPT_INVALID, "the proof does not say of which leaf it is")
    return receipt
