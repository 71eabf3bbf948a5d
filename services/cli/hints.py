"""What to do next, by reason: the half of an error that a message on the wire has no room for."""

from collections.abc import Mapping
from typing import Final

HINTS: Final[Mapping[str, str]] = {
    # the question
    "RECORD_TYPE_UNKNOWN": "`hutong catalogue` lists the record types",
    "RECORD_TYPE_REPEATED": "write one --select per record type, with all its fields: TYPE:field,field",
    "FIELD_UNKNOWN": "`hutong catalogue TYPE` lists the fields of a record type",
    "SELECTION_MISSING": "add --select TYPE or --select TYPE:field,field; `hutong catalogue` lists the types",
    "SELECTIONS_TOO_MANY": "ask in several questions",
    "SUBJECT_MISSING": "add --subject SCHEME:VALUE, for example --subject cn.uscc:…",
    "SUBJECT_INVALID": "check the identifier: digits swapped, or another scheme than it is of?",
    "SUBJECT_SCHEME_UNKNOWN": "`hutong catalogue TYPE` shows by which schemes a record type can be asked for",
    "SUBJECT_SCHEME_UNSUPPORTED": "`hutong catalogue TYPE` shows by which schemes a record type can be asked for",
    "PURPOSE_MISSING": "add --purpose CODE: every question states exactly one",
    "PURPOSE_SEVERAL": "ask once per purpose: an answer given for one may not be used for another",
    "PURPOSE_UNKNOWN": "purposes are the closed list of the jurisdiction in force",
    "BASIS_MISSING": "add --basis CODE: the legal basis you rely on",
    "BASIS_UNKNOWN": "bases are the closed list of the jurisdiction in force",
    "FILTER_FIELD_NOT_INDEXED": "`hutong catalogue TYPE` marks the fields that filters may use",
    "FILTER_FIELD_NOT_READABLE": "filter on fields that you are given in clear; `hutong explain` tells which",
    "PAGE_TOKEN_MISMATCH": "a page token goes on with the very question it came from: same subject, purpose and filter",
    "PAGE_TOKEN_INVALID": "start again without --page-token",
    "REQUEST_TOO_LARGE": "ask for less at once",
    "AS_OF_IN_FUTURE": "leave --as-of out to ask for what is known now",
    # decisions on fields
    "NO_PERMIT": "no policy gives this to you for this purpose; its owner's data officer can",
    "FORBIDDEN": "the owner forbids it, whatever permits say",
    "BASIS_MISMATCH": "a permit exists, but for another legal basis than the one stated with --basis",
    "POLICY_VERSIONS_DIFFER": "gateway and department hold different policies for the moment; ask again",
    # the caller
    "CALLER_NOT_LISTED": "this identity may not call this; --as says who asks",
    "IDENTITY_INVALID": "`hutong certs list` shows the certificates of the zone and their state",
    "CERTIFICATE_REVOKED": "the certificate was revoked; `hutong certs issue` makes a new one where that is right",
    "SVID_UNREADABLE": "`hutong certs issue AGENCY/SYSTEM --dir …` gives this system an identity",
    # the mesh
    "DEPARTMENT_UNREACHABLE": "is the mesh up? `hutong up` starts it; --gateway says where it is",
    "ROWS_UNREADABLE": "the department reads this type live, and its mapping does not fit every row: tell its owner",
    "HISTORY_UNAVAILABLE": "the department reads this type live and knows no past: leave --as-of out",
    "SCAN_TOO_LARGE": "ask for less: the department reads this type live from another system",
    "STORE_UNAVAILABLE": "the department's database is away for the moment; ask again",
    "DEPARTMENT_TIMEOUT": "the department was too slow; ask again, or allow more with --deadline",
    "DEADLINE_TOO_SHORT": "allow more time with --deadline",
    "SHUTTING_DOWN": "the node is draining; ask again",
    "ZONE_IN_USE": "one `hutong up` per zone folder; stop the other one, or use another --dir",
    "NODE_FAILED": "the node's own words are above; its whole log lies in the zone folder, under logs/",
    "ROOM_UNKNOWN": "a room is a package of `services` with a service.py, or `gateway`",
    # what an operator or data officer wrote
    "ADDRESS_IN_USE": "stop what listens there, or change `listen` in the node's config",
    "CONFIG_FILE_MISSING": "`hutong up` prepares a zone folder with configs; or give one with --config",
    "CONFIG_UNKNOWN_KEY": "correct the key; --check-config validates without starting",
    "CONFIG_INVALID": "correct the config; --check-config validates without starting",
    "STORE_NOT_MIGRATED": "set `migrate = true` under [store], or run the node once with it",
    "POLICY_INVALID": "`hutong policy check` shows every mistake",
    "SOURCE_READ_ONLY": "load it into its own system; `[live]` in the node's config says where that is",
    "MAPPING_INVALID": "correct the mapping; docs/ describes its words",
    "MAPPING_COLUMN_MISSING": "compare the mapping's columns with the source's header",
    "FILE_ERROR": "check the path and who may read it",
}
