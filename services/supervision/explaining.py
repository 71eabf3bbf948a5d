"""What an authorization would open if it were in force: what an approver has to see before anything is signed.

The owners' policies decide, as they are known here, for the system that would ask; the scope narrows what they give. No
record is read for it.
"""

from hutong.api.exchange.v1 import exchange_pb2
from services.kit.authorizations.scope import Scope
from services.kit.caller import Caller
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.mask import ReadMask
from services.kit.records.catalogue import Catalogue
from services.supervision.books import Authorization


class Explainer:
    """Explains authorizations."""

    def __init__(self, engine: PolicyEngine, catalogue: Catalogue, zone: str) -> None:
        self._engine = engine
        self._catalogue = catalogue
        self._zone = zone

    def masks(self, found: Authorization) -> list[ReadMask]:
        """Decide over every field of the scope, a mask for each record type; raises as `PolicyEngine.mask` does."""
        scope = Scope.of(found.scope)
        agency, _, system = scope.caller.partition("/")
        caller = Caller(f"spiffe://{self._zone}/{scope.caller}", agency, system)
        masks: list[ReadMask] = []
        for part in found.scope.types:
            kind = self._catalogue.get(part.record_type)
            mask = self._engine.mask(caller, context(found), kind, scope.authorized(found.id))
            masks.append(scope.narrow(mask).restrict(part.fields))
        return masks


def context(found: Authorization) -> exchange_pb2.RequestContext:
    """Say why an authorization is used: what every question under it has to state."""
    return exchange_pb2.RequestContext(
        purpose=found.scope.purpose,
        legal_basis=found.scope.legal_basis,
        case_ref=found.scope.case_ref,
        authorization_id=found.id,
    )
