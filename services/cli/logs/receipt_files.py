"""Receipts as people have them: in an answer that was saved, as it came or as JSON, or by themselves."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from hutong.api.exchange.v1 import federation_pb2
from hutong.api.log.v1 import log_pb2
from services.kit.credentials import strict
from services.kit.errors import InvalidArgument, PermissionDenied, Reason
from services.kit.log import receipts

LIMIT: Final = 64 * 1024 * 1024
"""Most bytes of a saved answer."""

STANDARD_INPUT: Final = Path("-")


@dataclass(frozen=True, slots=True)
class Saved:
    """A receipt, and the digest of the answer that it came with."""

    receipt: log_pb2.Receipt
    digest: bytes = b""
    """SHA-256 of the answer's bytes; empty where they are not there: JSON says the same in other bytes."""


def read(path: Path) -> Saved:
    """Read a receipt: an answer that ends in one, as it came; JSON of one or of such an answer; or a serialized one.

    Raises `InvalidArgument` RECEIPT_INVALID for what holds none, or several; `OSError` for what cannot be read.
    """
    data = load(path)
    try:
        saved = Saved(_from_json(data)) if data.lstrip()[:1] == b"{" else _serialized(data)
    except (ValueError, TypeError, AttributeError, RecursionError, json_format.ParseError, DecodeError):
        raise _none(path) from None
    if not saved.receipt.origin or not saved.receipt.leaf_hash:
        raise _none(path)
    return saved


def _serialized(data: bytes) -> Saved:
    try:
        answered = receipts.split(data, federation_pb2.QueryResponse)
    except (PermissionDenied, DecodeError):
        return Saved(log_pb2.Receipt.FromString(data))
    return Saved(answered.receipt, answered.digest)


def _from_json(data: bytes) -> log_pb2.Receipt:
    found: Any = json.loads(data)
    receipt = found.get("receipt", found)
    return json_format.ParseDict(receipt, log_pb2.Receipt(), max_recursion_depth=strict.DEPTH)


def load(path: Path) -> bytes:
    """Read a saved answer; raises `InvalidArgument` REQUEST_TOO_LARGE, or `OSError`."""
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


def shown(receipt: log_pb2.Receipt) -> bytes:
    """Write a receipt for a proof that others get: without the salt, by which they could try out what was answered."""
    made = log_pb2.Receipt()
    made.CopyFrom(receipt)
    made.ClearField("answer_salt")
    return made.SerializeToString(deterministic=True)


def parse(data: bytes) -> log_pb2.Receipt:
    """Read a receipt out of a proof; raises `InvalidArgument` RECEIPT_INVALID where there is none."""
    try:
        receipt = log_pb2.Receipt.FromString(data)
    except DecodeError:
        receipt = log_pb2.Receipt()
    if not receipt.leaf_hash:
        raise InvalidArgument(Reason.RECEIPT_INVALID, "the proof does not say of which leaf it is")
    return receipt
