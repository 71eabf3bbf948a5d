"""Every error of the mesh, with the reason a machine can act on.

One tree: a class per gRPC status code, a member of `Reason` per cause. The message is for people and free to
change; code and reason are contract. `services.kit.wire` turns an error into `google.rpc.Status` with an `ErrorInfo`
and back, so that a reason survives every hop.

    HutongError
      InvalidArgument     the request is wrong whatever the state
      Unauthenticated     the caller's identity does not stand
      PermissionDenied    the caller may not, or must not learn whether it exists (AIP-211)
      NotFound            there is no such thing that the caller may see
      FailedPrecondition  the state does not allow it now
      Aborted             somebody else was faster; read again and retry
      ResourceExhausted   a limit was reached
      DeadlineExceeded    the answer did not come in time
      Unavailable         the other side cannot be reached; retry with back-off
      Internal            our fault; the id in the message finds the log line
"""

from enum import StrEnum
from typing import ClassVar

DOMAIN = "hutong"
"""`ErrorInfo.domain` of every error of the mesh."""


class Code(StrEnum):
    """The gRPC status codes that errors map to, by name."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


class Reason(StrEnum):
    """Machine reasons. A value, once released, keeps its meaning."""

    # the request
    MALFORMED_REQUEST = "MALFORMED_REQUEST"
    REQUEST_TOO_LARGE = "REQUEST_TOO_LARGE"
    ANSWER_TOO_LARGE = "ANSWER_TOO_LARGE"
    CALLS_TOO_MANY = "CALLS_TOO_MANY"
    RECORD_TYPE_UNKNOWN = "RECORD_TYPE_UNKNOWN"
    RECORD_TYPE_REPEATED = "RECORD_TYPE_REPEATED"
    RECORD_TYPE_NOT_OWNED = "RECORD_TYPE_NOT_OWNED"
    FIELD_UNKNOWN = "FIELD_UNKNOWN"
    SELECTION_MISSING = "SELECTION_MISSING"
    SELECTIONS_TOO_MANY = "SELECTIONS_TOO_MANY"
    SUBJECT_MISSING = "SUBJECT_MISSING"
    SUBJECT_INVALID = "SUBJECT_INVALID"
    SUBJECT_SCHEME_UNKNOWN = "SUBJECT_SCHEME_UNKNOWN"
    SUBJECT_SCHEME_UNSUPPORTED = "SUBJECT_SCHEME_UNSUPPORTED"
    PURPOSE_MISSING = "PURPOSE_MISSING"
    PURPOSE_SEVERAL = "PURPOSE_SEVERAL"
    PURPOSE_UNKNOWN = "PURPOSE_UNKNOWN"
    BASIS_MISSING = "BASIS_MISSING"
    BASIS_UNKNOWN = "BASIS_UNKNOWN"
    CASE_MISSING = "CASE_MISSING"
    FILTER_INVALID = "FILTER_INVALID"
    FILTER_FIELD_NOT_INDEXED = "FILTER_FIELD_NOT_INDEXED"
    FILTER_FIELD_NOT_READABLE = "FILTER_FIELD_NOT_READABLE"
    LOOKUP_FIELD_NOT_READABLE = "LOOKUP_FIELD_NOT_READABLE"
    PAGE_SIZE_INVALID = "PAGE_SIZE_INVALID"
    PAGE_TOKEN_INVALID = "PAGE_TOKEN_INVALID"  # noqa: S105 - a reason, not a secret
    PAGE_TOKEN_MISMATCH = "PAGE_TOKEN_MISMATCH"  # noqa: S105 - a reason, not a secret
    STREAMS_TOO_MANY = "STREAMS_TOO_MANY"
    RESUME_TOKEN_INVALID = "RESUME_TOKEN_INVALID"  # noqa: S105 - a reason, not a secret
    AS_OF_IN_FUTURE = "AS_OF_IN_FUTURE"
    SCAN_TOO_LARGE = "SCAN_TOO_LARGE"
    HISTORY_UNAVAILABLE = "HISTORY_UNAVAILABLE"
    NAME_INVALID = "NAME_INVALID"
    RECORD_INVALID = "RECORD_INVALID"
    # the caller
    IDENTITY_INVALID = "IDENTITY_INVALID"
    CERTIFICATE_REVOKED = "CERTIFICATE_REVOKED"
    REVOCATION_UNKNOWN = "REVOCATION_UNKNOWN"
    CONTEXT_INVALID = "CONTEXT_INVALID"
    CONTEXT_EXPIRED = "CONTEXT_EXPIRED"
    CONTEXT_MISSING = "CONTEXT_MISSING"
    CALLER_NOT_LISTED = "CALLER_NOT_LISTED"
    # decisions on fields (also the reasons in FieldDecision)
    PERMITTED = "PERMITTED"
    NO_PERMIT = "NO_PERMIT"
    FORBIDDEN = "FORBIDDEN"
    BASIS_MISMATCH = "BASIS_MISMATCH"
    DECISION_FAILED = "DECISION_FAILED"
    POLICY_VERSIONS_DIFFER = "POLICY_VERSIONS_DIFFER"
    # state
    RECORD_NOT_FOUND = "RECORD_NOT_FOUND"
    ROWS_UNREADABLE = "ROWS_UNREADABLE"
    DEPARTMENT_TIMEOUT = "DEPARTMENT_TIMEOUT"
    DEPARTMENT_UNREACHABLE = "DEPARTMENT_UNREACHABLE"
    DEPARTMENT_FAILED = "DEPARTMENT_FAILED"
    DEADLINE_TOO_SHORT = "DEADLINE_TOO_SHORT"
    VERSION_CONFLICT = "VERSION_CONFLICT"
    SOURCE_READ_ONLY = "SOURCE_READ_ONLY"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    INTERNAL = "INTERNAL"
    # what an operator or data officer wrote
    CONFIG_INVALID = "CONFIG_INVALID"
    CONFIG_UNKNOWN_KEY = "CONFIG_UNKNOWN_KEY"
    CONFIG_FILE_MISSING = "CONFIG_FILE_MISSING"
    ADDRESS_IN_USE = "ADDRESS_IN_USE"
    ROOM_UNKNOWN = "ROOM_UNKNOWN"
    NODE_FAILED = "NODE_FAILED"
    ZONE_IN_USE = "ZONE_IN_USE"
    ACCESS_LIST_INVALID = "ACCESS_LIST_INVALID"
    STORE_NOT_MIGRATED = "STORE_NOT_MIGRATED"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    POLICY_INVALID = "POLICY_INVALID"
    POLICY_FOREIGN_RECORD = "POLICY_FOREIGN_RECORD"
    POLICY_WITHOUT_BASIS = "POLICY_WITHOUT_BASIS"
    POLICY_WITHOUT_END = "POLICY_WITHOUT_END"
    POLICY_TRANSFORM_INVALID = "POLICY_TRANSFORM_INVALID"
    POLICY_CONDITION_INVALID = "POLICY_CONDITION_INVALID"
    POLICY_OPENS_WITHHELD = "POLICY_OPENS_WITHHELD"
    MAPPING_INVALID = "MAPPING_INVALID"
    MAPPING_COLUMN_MISSING = "MAPPING_COLUMN_MISSING"
    SCHEMA_INVALID = "SCHEMA_INVALID"
    FOLDER_NOT_EMPTY = "FOLDER_NOT_EMPTY"
    SAMPLE_MISSING = "SAMPLE_MISSING"
    # recognition
    PROCEDURE_INVALID = "PROCEDURE_INVALID"
    PROCEDURE_CYCLE = "PROCEDURE_CYCLE"
    PROCEDURE_UNKNOWN = "PROCEDURE_UNKNOWN"
    PROCEDURE_CHANGED = "PROCEDURE_CHANGED"
    ARRANGEMENT_INVALID = "ARRANGEMENT_INVALID"
    CALENDAR_UNKNOWN = "CALENDAR_UNKNOWN"
    CALENDAR_INVALID = "CALENDAR_INVALID"
    AGENCY_UNKNOWN = "AGENCY_UNKNOWN"
    CASE_NOT_FOUND = "CASE_NOT_FOUND"
    CASE_CLOSED = "CASE_CLOSED"
    CASE_EXISTS = "CASE_EXISTS"
    SUBJECT_NOT_OWN = "SUBJECT_NOT_OWN"
    REQUEST_ID_INVALID = "REQUEST_ID_INVALID"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    COMMITMENT_MISSING = "COMMITMENT_MISSING"
    ANSWER_UNKNOWN = "ANSWER_UNKNOWN"
    ANSWER_MISSING = "ANSWER_MISSING"
    STAGE_UNKNOWN = "STAGE_UNKNOWN"
    STAGE_NOT_APPLICABLE = "STAGE_NOT_APPLICABLE"
    STAGE_NOT_READY = "STAGE_NOT_READY"
    EVENT_WRONG_AGENCY = "EVENT_WRONG_AGENCY"
    EVENT_NOT_ALLOWED = "EVENT_NOT_ALLOWED"
    EVENT_OUT_OF_ORDER = "EVENT_OUT_OF_ORDER"
    EVENT_IN_FUTURE = "EVENT_IN_FUTURE"
    EVENT_TOO_OLD = "EVENT_TOO_OLD"
    EVENT_ID_INVALID = "EVENT_ID_INVALID"
    EVENT_ID_REUSED = "EVENT_ID_REUSED"
    SUPPLEMENT_REPEATED = "SUPPLEMENT_REPEATED"
    PAUSE_NOT_ALLOWED = "PAUSE_NOT_ALLOWED"
    EXTENSION_NOT_ALLOWED = "EXTENSION_NOT_ALLOWED"
    REASON_MISSING = "REASON_MISSING"
    REASON_UNKNOWN = "REASON_UNKNOWN"
    REMINDED_ALREADY = "REMINDED_ALREADY"
    EXAMINATION_OPEN = "EXAMINATION_OPEN"
    EXAMINATION_VALID = "EXAMINATION_VALID"
    RECOGNISED_RESULT_INVALID = "RECOGNISED_RESULT_INVALID"
    RESULT_MISSING = "RESULT_MISSING"
    FACT_NOT_PROVEN = "FACT_NOT_PROVEN"
    RESULT_NOT_FOUND = "RESULT_NOT_FOUND"
    RESULT_MALFORMED = "RESULT_MALFORMED"
    RESULT_ALGORITHM = "RESULT_ALGORITHM"
    RESULT_SIGNATURE = "RESULT_SIGNATURE"
    RESULT_ISSUER = "RESULT_ISSUER"
    RESULT_SUBJECT = "RESULT_SUBJECT"
    RESULT_FACT = "RESULT_FACT"
    RESULT_DISCLOSURE = "RESULT_DISCLOSURE"
    RESULT_EXPIRED = "RESULT_EXPIRED"
    RESULT_NOT_YET_VALID = "RESULT_NOT_YET_VALID"
    RESULT_REVOKED = "RESULT_REVOKED"
    RESULT_SUSPENDED = "RESULT_SUSPENDED"
    RESULT_SUPERSEDED = "RESULT_SUPERSEDED"
    RESULT_STATE_UNKNOWN = "RESULT_STATE_UNKNOWN"
    RESULT_ID_REUSED = "RESULT_ID_REUSED"
    KEY_UNKNOWN = "KEY_UNKNOWN"
    KEY_REVOKED = "KEY_REVOKED"
    KEY_NOT_YET_VALID = "KEY_NOT_YET_VALID"
    KEY_EXPIRED = "KEY_EXPIRED"
    KEY_INVALID = "KEY_INVALID"
    KEY_BINDING_INVALID = "KEY_BINDING_INVALID"
    STATUS_LIST_INVALID = "STATUS_LIST_INVALID"
    RESERVATIONS_TOO_MANY = "RESERVATIONS_TOO_MANY"
    CASES_TOO_MANY = "CASES_TOO_MANY"
    TASK_NOT_FOUND = "TASK_NOT_FOUND"
    TASK_DISPOSED = "TASK_DISPOSED"
    DISPOSITION_INVALID = "DISPOSITION_INVALID"
    LOG_INVALID = "LOG_INVALID"
    EVENT_INVALID = "EVENT_INVALID"
    EVENT_TOO_LARGE = "EVENT_TOO_LARGE"
    EVENTS_AHEAD = "EVENTS_AHEAD"


class HutongError(Exception):
    """An error with a machine reason; never raised itself, only its subclasses."""

    code: ClassVar[Code] = Code.INTERNAL

    def __init__(self, reason: Reason, message: str, /, **metadata: str) -> None:
        """`metadata` goes to the caller in `ErrorInfo.metadata`: never put a secret or personal data in it."""
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = metadata


class InvalidArgument(HutongError):
    """The request is wrong, whatever the state of the system."""

    code = Code.INVALID_ARGUMENT


class Unauthenticated(HutongError):
    """The caller's identity does not stand."""

    code = Code.UNAUTHENTICATED


class PermissionDenied(HutongError):
    """The caller may not; also the answer where it must not learn whether a thing exists."""

    code = Code.PERMISSION_DENIED


class NotFound(HutongError):
    """There is no such thing that the caller may see."""

    code = Code.NOT_FOUND


class FailedPrecondition(HutongError):
    """The state does not allow it now; something else has to happen first."""

    code = Code.FAILED_PRECONDITION


class Aborted(HutongError):
    """Somebody else was faster: read again and retry."""

    code = Code.ABORTED


class ResourceExhausted(HutongError):
    """A stated limit was reached."""

    code = Code.RESOURCE_EXHAUSTED


class DeadlineExceeded(HutongError):
    """The answer did not come in time."""

    code = Code.DEADLINE_EXCEEDED


class Unavailable(HutongError):
    """The other side cannot be reached now; retry with back-off."""

    code = Code.UNAVAILABLE


class Internal(HutongError):
    """Our fault; the id in the message finds the log line."""

    code = Code.INTERNAL
