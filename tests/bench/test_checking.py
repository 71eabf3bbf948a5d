"""What counts as a right answer: every field as the corpus has it, nothing that policy keeps back, all decided."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from google.protobuf import descriptor_pb2

from bench import bulk, corpus
from bench.asking import checking, graphql
from bench.asking.checking import WrongAnswerError
from bench.asking.job import GIVEN, Job
from bench.peers import contract
from hutong.api.commerce.v1 import enterprise_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.cli.rooms import room
from services.kit.records import catalogue, migrations
from services.kit.records.source import RecordQuery
from services.kit.records.store import RecordStore
from services.kit.records.writer import Draft

REPOSITORY = Path(__file__).resolve().parents[2]
NUMBER = 5


def answer() -> federation_pb2.QueryResponse:
    response = federation_pb2.QueryResponse()
    for name, fields in GIVEN.items():
        record = corpus.record(name, NUMBER)
        section = response.sections.add(record_type=name)
        for field in record.DESCRIPTOR.fields:
            if field.name not in fields:
                record.ClearField(field.name)
        record.envelope.key = "any"  # type: ignore[attr-defined]
        section.records.add().Pack(record)
        section.decisions.extend(
            exchange_pb2.FieldDecision(field=field, verdict=exchange_pb2.VERDICT_CLEAR) for field in fields
        )
    return response


def test_the_right_answer_is_right() -> None:
    checking.federated(answer(), NUMBER, GIVEN)


def _changed(change: Callable[[enterprise_pb2.Enterprise], object]) -> federation_pb2.QueryResponse:
    response = answer()
    record = enterprise_pb2.Enterprise()
    response.sections[0].records[0].Unpack(record)
    change(record)
    response.sections[0].records[0].Pack(record)
    return response


@pytest.mark.parametrize(
    "wrong",
    [
        _changed(lambda record: record.ClearField("name")),
        _changed(lambda record: setattr(record, "name", "another")),
        _changed(lambda record: setattr(record, "contact_phone", "too much")),
        _changed(lambda record: record.ClearField("envelope")),
        federation_pb2.QueryResponse(sections=answer().sections[:4]),
        federation_pb2.QueryResponse(),
    ],
)
def test_any_other_answer_is_wrong(wrong: federation_pb2.QueryResponse) -> None:
    with pytest.raises(WrongAnswerError):
        checking.federated(wrong, NUMBER, GIVEN)


def test_an_answer_without_a_record_or_a_decision_is_wrong() -> None:
    names: tuple[Literal["records", "decisions"], ...] = ("records", "decisions")
    for name in names:
        wrong = answer()
        wrong.sections[3].ClearField(name)
        with pytest.raises(WrongAnswerError):
            checking.federated(wrong, NUMBER, GIVEN)


def test_the_answer_about_another_enterprise_is_wrong() -> None:
    with pytest.raises(WrongAnswerError):
        checking.federated(answer(), NUMBER + 1, GIVEN)


def test_peers_contract_is_what_its_file_says(tmp_path: Path) -> None:
    """The messages that are built by hand are those of `bench.proto`, which peers in other languages read."""
    folder = REPOSITORY / "bench" / "peers"
    image = tmp_path / "image"
    command = ["-m", "grpc_tools.protoc", f"-I{folder}", f"-I{REPOSITORY / 'proto'}", f"--descriptor_set_out={image}"]
    subprocess.run([sys.executable, *command, "bench.proto"], check=True)
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes()).file
    told = next(message for message in file.message_type if message.name == "Answer")
    ours = descriptor_pb2.DescriptorProto()
    contract.Answer.DESCRIPTOR.CopyToProto(ours)
    assert [(f.name, f.number, f.type_name) for f in ours.field] == [
        (f.name, f.number, f.type_name) for f in told.field
    ]
    rpcs = {f"/{file.package}.{s.name}/{m.name}": m.output_type for s in file.service for m in s.method}
    for name in corpus.TYPES:
        assert rpcs[contract.get(contract.agency_of(name))] == f".{catalogue.load().get(name).full_name}"
    assert rpcs[contract.QUERY] == ".bench.v1.Answer"


def test_a_graphql_query_asks_for_the_same_fields() -> None:
    document = graphql.document(GIVEN)
    assert "reg_capital_amt { value }" in document
    assert "contact_phone" not in document
    assert document.count("_Get(input: { uscc: $uscc })") == len(corpus.TYPES)


def test_a_job_survives_the_way_to_the_generator() -> None:
    job = Job("session", "127.0.0.1:1", "spiffe://zone.example/gateway/main", "a", "b", subjects=10, stride=7)
    assert Job.from_json(job.to_json()).numbers == range(0, 70, 7)


def test_lock_files_name_no_registry() -> None:
    for name in ("grpcjs", "hive"):
        text = (REPOSITORY / "bench" / "peers" / name / "package-lock.json").read_text(encoding="utf-8")
        assert '"resolved"' not in text
        assert "registry" not in text
        assert '"integrity"' in text


async def test_rows_in_bulk_are_like_those_that_were_recorded(tmp_path: Path) -> None:
    """Found by their enterprise, with all indexes there were; asked of the store as a node asks."""
    own, kind = room(bulk.AGENCY), catalogue.load().get(bulk.TYPE)
    one, many = (tmp_path / name for name in ("one.db", "many.db"))
    url = f"sqlite:///{one}"
    migrations.upgrade(url, own.migrations)
    async with RecordStore(url, own.catalogue()) as store:
        await store.append([Draft(kind, corpus.record(bulk.TYPE, 0), "bench")])
    shutil.copy(one, many)
    bulk.grow(many, 1, 300)
    bulk.add_many(many, 7, 40)
    async with RecordStore(f"sqlite:///{many}", own.catalogue()) as store:
        await store.check_migrated(own.migrations)
        assert await store.last_seq() == 340
        for number, count in ((0, 1), (299, 1), (7, 41)):
            page = await store.fetch(RecordQuery(kind, subject=(corpus.SCHEME, corpus.code(number)), limit=100))
            assert len(page.records) == count
            found = {kind.message.FromString(record.body).uscc for record in page.records}  # type: ignore[attr-defined]
            assert found == {corpus.code(number)}
        again = await store.append([Draft(kind, corpus.record(bulk.TYPE, 0), "bench")])
        assert [str(outcome) for outcome in again] == ["UNCHANGED"]
