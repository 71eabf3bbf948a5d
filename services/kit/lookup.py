"""What records may be looked up by: asking by a subject or a key must not tell what policy keeps back.

Whoever asks by an identifier learns of every record that comes back that the identifier is in it. So

1. a field that is forbidden, or given in another form only, is not asked by: a pseudonym that comes back for a code
   that one can name is none;
2. where a field that may hold the identifier is given as it stands, only such fields are asked by, and only in rows
   where it is given: that the code stands in the other one, or in other rows, is not for this caller to know;
3. a field that is merely not permitted is asked by where no other may be. Whom a question is about is for the caller to
   say, and many a permit opens facts about a subject without repeating whose they are.

An authorization changes nothing of this: it leaves fewer fields, but whom one may ask about by which of them is policy.
"""

from services.kit.errors import InvalidArgument, PermissionDenied, Reason
from services.kit.policy.mask import Conditions, ReadMask
from services.kit.records import conditions
from services.kit.records.source import Via, subject_fields


def by_subject(mask: ReadMask, scheme: str) -> Via:
    """Say in which fields a subject of `scheme` may be looked for, and under which conditions.

    Raises `InvalidArgument` where the type has no field of that scheme, `PermissionDenied` LOOKUP_FIELD_NOT_READABLE
    where it has one and policy keeps that back.
    """
    fields = subject_fields(mask.record_type, scheme)
    grants = ((f.path, mask.policy.grants.get(f.path)) for f in fields)
    if given := tuple((path, grant.conditions) for path, grant in grants if grant and grant.transform is None):
        return given
    if any(f.path in mask.kept_back for f in fields):
        raise _kept_back(mask, scheme)
    return tuple((f.path, ()) for f in fields)


def by_key(mask: ReadMask) -> Conditions:
    """Give the conditions that must hold for a record to be found by its key.

    Raises `PermissionDenied` LOOKUP_FIELD_NOT_READABLE where policy keeps a part of the key back.
    """
    found: list[Conditions] = []
    for field in mask.record_type.key_fields:
        if field.path in mask.kept_back:
            raise _kept_back(mask, "key")
        grant = mask.policy.grants.get(field.path)
        found.append(grant.conditions if grant else ())
    return tuple(dict.fromkeys(condition for several in found for condition in several))


def by_filter(mask: ReadMask, text: str) -> Conditions:
    """Parse a filter; it may use every field that the caller gets in clear, asked for or not.

    Were it to use others, a caller could find out a hidden value by asking which records match. A field given under
    row conditions filters only rows where they hold, so these are added. Raises `InvalidArgument`.
    """
    if not text:
        return ()
    condition = conditions.parse(text, mask.record_type)
    found = [condition]
    for path in sorted(condition.fields):
        grant = mask.whole.grants.get(path)
        if grant is None or grant.transform is not None:
            raise InvalidArgument(
                Reason.FILTER_FIELD_NOT_READABLE,
                f"{mask.record_type.name}: filters may use only fields given to you in clear, and {path!r} is none",
                record_type=mask.record_type.name,
                field=path,
            )
        found.extend(grant.conditions)
    return tuple(found)


def _kept_back(mask: ReadMask, what: str) -> PermissionDenied:
    name = mask.record_type.name
    message = f"{name} cannot be looked up by {what}: for this purpose that is kept from you"
    return PermissionDenied(Reason.LOOKUP_FIELD_NOT_READABLE, message, record_type=name)
