"""When an identity is due for renewal, and its renewal: pure functions of the time, and one step that writes.

An SVID is renewed at half its life. What was replaced is not revoked: connections made with it end by themselves, at
the latest when it expires, and no call fails meanwhile.
"""

import datetime as dt

from certs.authority import Authority
from certs.register import Issued, State


def due_at(not_before: dt.datetime, not_after: dt.datetime) -> dt.datetime:
    """Say when a certificate is due for renewal: at half its life."""
    return not_before + (not_after - not_before) / 2


def is_due(not_before: dt.datetime, not_after: dt.datetime, now: dt.datetime) -> bool:
    """Say whether a certificate is due at `now`; one that has expired is."""
    return now >= due_at(not_before, not_after)


def due(authority: Authority, now: dt.datetime) -> tuple[Issued, ...]:
    """List the current certificates that are due at `now`; a revoked identity is not renewed on the quiet.

    Also due is one that never reached its file, because the authority stopped between register and file.
    """
    return tuple(
        entry
        for entry in authority.current().values()
        if entry.state(now) is not State.REVOKED
        and (is_due(entry.not_before, entry.not_after, now) or not authority.delivered(entry))
    )


def rotate(authority: Authority, entry: Issued, now: dt.datetime) -> Issued:
    """Renew one identity into the same files: a new key, a new certificate of the same lifetime, one rename.

    Raises `RevocationRefused` when `entry` was revoked.
    """
    return authority.renew(entry.spiffe_id, now, ttl=entry.ttl)
