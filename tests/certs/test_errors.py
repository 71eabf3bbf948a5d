"""The error tree: every reason once, listed where people look."""

import inspect

import certs.errors
from certs.errors import CertificateError


def _all() -> list[type[CertificateError]]:
    return [
        value for value in vars(certs.errors).values() if inspect.isclass(value) and issubclass(value, CertificateError)
    ]


def test_every_reason_is_its_own() -> None:
    reasons = [error.reason for error in _all()]
    assert len(set(reasons)) == len(reasons)


def test_the_tree_lists_every_error_with_its_reason() -> None:
    listed = [line.split()[:2] for line in (certs.errors.__doc__ or "").splitlines() if line.startswith("  ")]
    assert listed == [[error.__name__, error.reason] for error in _all() if error is not CertificateError]


def test_an_error_says_what_to_do() -> None:
    error = certs.errors.ZoneMissing("no zone", "create one")
    assert (str(error), error.hint, error.reason) == ("no zone", "create one", "ZONE_MISSING")
