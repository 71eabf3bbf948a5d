"""Every answer of a session has a receipt of its own, and the log an entry for it."""

import asyncio
from collections import Counter

from hutong.api.exchange.v1 import federation_pb2
from services.kit.errors import HutongError, Reason
from services.kit.log import receipts
from tests.exchange.mesh import QUERY, Mesh, question
from tests.exchange.records import EXPORTER, OTHER
from tests.recording.bed import everything, included, key_of
from tests.sessions.talking import Talk, ask, prepare

PUBLIC = {"purpose": "P-PUBLIC-REG", "legal_basis": "CN-PUBLIC-REGISTER"}
SUBJECTS = (f"cn.uscc:{EXPORTER}", f"cn.uscc:{OTHER}")
ASKED = question(SUBJECTS[0], "commerce.Enterprise:name", "taxation.TaxpayerStatus:uscc", **PUBLIC)
MANY = 60


async def test_every_answer_is_logged_once_and_its_receipt_stands(own: Mesh) -> None:
    own.policy("commerce")
    await own.start("commerce")
    await own.replace_gateway()
    client = own.client("quality/lab")
    host = own.host("gateway")
    async with Talk(client) as talk:
        talk.say(prepare(0, ASKED), *(ask(number, 0, SUBJECTS[number % 2]) for number in range(MANY)))
        talk.say(ask(MANY, 0, "cn.uscc:nobody"), ask(MANY + 1, 9, SUBJECTS[0]))
        raws = [await talk.raw(number) for number in range(MANY + 2)]
    refused = [raw.reason for raw in raws if isinstance(raw, HutongError)]
    assert refused == [Reason.SUBJECT_INVALID, Reason.MALFORMED_REQUEST]
    found = [receipts.split(raw, federation_pb2.QueryResponse) for raw in raws if isinstance(raw, bytes)]
    for answered in found:
        receipts.verify(answered.receipt, key_of(host))
    assert len({answered.receipt.index for answered in found}) == MANY
    entries = [entry for entry in await everything(host) if entry.rpc == QUERY]
    digests = Counter(entry.answer_digest for entry in entries if entry.answer_digest)
    assert digests == Counter(answered.digest for answered in found)
    assert sorted(entry.reason for entry in entries if entry.reason) == sorted(refused)
    # Of a refused question the log holds why it was asked, as far as that was known.
    assert {entry.purpose for entry in entries if entry.reason == Reason.SUBJECT_INVALID} == {"P-PUBLIC-REG"}
    await asyncio.gather(*(included(client, host, answered.receipt) for answered in found[:5]))
