"""What one caller does wrong costs no other, though a gateway asks for all of them."""

from pathlib import Path

from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.kit.config import LimitsSection
from services.kit.errors import HutongError, Reason
from tests.exchange.mesh import QUERY, Mesh, question
from tests.exchange.records import EXPORTER, RECORDS

UNAVAILABLE = exchange_pb2.SECTION_STATUS_UNAVAILABLE
PUBLIC = {"purpose": "P-PUBLIC-REG", "legal_basis": "CN-PUBLIC-REGISTER"}
ASKED = question(f"cn.uscc:{EXPORTER}", "customs.Operator", **PUBLIC)
HONEST = "quality/lab"


async def came_of(mesh: Mesh, who: str, token: str = "") -> Reason | tuple[int, str]:
    """Ask, with a page token that is no token where one is given."""
    asked = federation_pb2.QueryRequest()
    asked.CopyFrom(ASKED)
    asked.selections[0].page_token = token
    try:
        answer = await mesh.client(who).unary(QUERY, asked, federation_pb2.QueryResponse, timeout=5)
    except HutongError as error:
        return error.reason
    return answer.sections[0].status, answer.sections[0].reason


async def test_refusals_at_a_department_are_those_of_whom_the_gateway_asks_for(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    # One, and the next in a hundred seconds.
    mesh.limits = LimitsSection(refusals=0.01)
    try:
        await mesh.start("customs")
        await mesh.load("customs", RECORDS["customs"])
        await mesh.start_gateway()
        log = mesh.host("customs").log
        assert log is not None
        served = await came_of(mesh, HONEST)
        assert served == (exchange_pb2.SECTION_STATUS_PARTIAL, "")
        # Only the department can tell that a token is forged, and it refuses the whole of what it is asked.
        for forger in ("taxation/refund", "taxation/desk"):
            assert await came_of(mesh, forger, "forged") == Reason.PAGE_TOKEN_INVALID
            assert await came_of(mesh, forger, "forged") == Reason.RATE_EXCEEDED, "the gateway lets it ask no more"
            assert await came_of(mesh, HONEST) == served
        # With the fields that may be given this is too long for a department, which at the gateway is no refusal.
        logged, careless = 0, "taxation/batch"
        for _ in range(5):
            before = log.size
            assert await came_of(mesh, careless, "A" * 32_700) == (UNAVAILABLE, Reason.DEPARTMENT_FAILED)
            logged += log.size - before
            assert await came_of(mesh, HONEST) == served
        assert logged == 1, "one is logged, and what is too much is not"
        assert await came_of(mesh, careless) == served
    finally:
        await mesh.stop()
