"""The word of a gateway to another zone: what makes it stand, and one test for each way in which it does not."""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from certs.errors import ChainUntrusted
from certs.foreign import ForeignPeers, ForeignZone
from certs.register import RevocationReason
from certs.revocation import RevocationList
from certs.spiffe import SpiffeId
from certs.svid import Svid, pem_of
from gateway.words import Listener, Speaker, Spoken
from gateway.zones import check
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, zone_pb2
from services.kit import wire
from services.kit.caller import Caller
from services.kit.context import LIFETIME, SKEW, Signer
from services.kit.errors import HutongError, Reason
from tests.zone import Zone, now

PORT, INLAND, FAR = "port.example", "inland.example", "far.example"
GATEWAY = "gateway/main"
WHY = exchange_pb2.RequestContext(purpose="P-REBATE", legal_basis="CN-VAT-REBATE")
TAX = Caller(f"spiffe://{PORT}/taxation/refund", "taxation", "refund")
TO_INLAND, TO_FAR = (INLAND, INLAND), (FAR, INLAND)

Request = zone_pb2.QueryZoneRequest


@dataclass
class Clock:
    moment: dt.datetime = field(default_factory=now)

    def __call__(self) -> dt.datetime:
        return self.moment


class Stage:
    """Three zones; inland and far listen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.zones: dict[str, Zone] = {}
        for name in (PORT, INLAND, FAR):
            (folder / name).mkdir()
            self.zones[name] = Zone(folder / name, name)
        self.clock = Clock()
        self.speaker = Speaker(self.clock)
        gateways = {name: SpiffeId.of(name, "gateway", "main") for name in self.zones}
        for zone in self.zones.values():
            zone.files(GATEWAY)
        self.known = {name: self.foreign(zone) for name, zone in self.zones.items()}
        self.inland = Listener(INLAND, self.known, gateways, self.clock)
        self.port = Listener(PORT, self.known, gateways, self.clock)
        self.far = Listener(FAR, self.known, gateways, self.clock)

    def foreign(self, zone: Zone) -> ForeignZone:
        layout = zone.authority.layout
        return ForeignZone(zone.name, layout.bundle, RevocationList(layout.revoked, layout.bundle))

    def svid(self, zone: str, path: str = GATEWAY) -> Svid:
        return self.zones[zone].files(path).load()

    def question(self) -> Request:
        request = Request(query_id="0" * 32, selections=[exchange_pb2.Selection(record_type="customs.Declaration")])
        request.subject.CopyFrom(common_pb2.SubjectId(scheme="cn.uscc", value="91350211M0000XUF46"))
        return request

    def asked(self, way: Sequence[str] = TO_INLAND, who: Caller = TAX, by: Svid | None = None) -> Request:
        request = self.question()
        self.speaker.ask(by or self.svid(PORT), request, who, WHY, way)
        return request

    def carried(self) -> Request:
        """Port's question to far, as inland carries it on."""
        request = self.asked(TO_FAR)
        self.speaker.carry(self.svid(INLAND), request, (FAR, FAR))
        return request

    def hear(self, request: Request, by: Svid | None = None, listener: Listener | None = None) -> Spoken:
        return (listener or self.inland).hear(request, (by or self.svid(PORT)).chain)

    def resigned(self, request: Request, number: int, change: Callable[[zone_pb2.ZoneContext], object]) -> Request:
        """One of a question's words changed, and signed again by the true key of who spoke it."""
        word = request.words[number]
        context = zone_pb2.ZoneContext.FromString(word.payload)
        change(context)
        word.payload = context.SerializeToString()
        word.signature = Signer().sign(self.svid((PORT, INLAND)[number]), b"hutong zone word\n" + word.payload)
        return request


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("words"))


def test_a_word_stands(stage: Stage) -> None:
    spoken = stage.hear(stage.asked())
    assert (spoken.caller.path, spoken.caller.zone) == ("taxation.port.example/refund", PORT)
    assert (spoken.context, spoken.zone, spoken.path) == (WHY, INLAND, (PORT,))


def test_a_word_carried_on_stands(stage: Stage) -> None:
    spoken = stage.hear(stage.carried(), stage.svid(INLAND), stage.far)
    assert (spoken.caller.spiffe_id, spoken.zone, spoken.path) == (TAX.spiffe_id, FAR, (PORT, INLAND))


def expires(later: dt.timedelta) -> Callable[[zone_pb2.ZoneContext], object]:
    def change(context: zone_pb2.ZoneContext) -> None:
        context.issued_at.FromDatetime(context.issued_at.ToDatetime(dt.UTC) + later)
        context.expires_at.FromDatetime(context.expires_at.ToDatetime(dt.UTC) + later)

    return change


def longer(context: zone_pb2.ZoneContext) -> None:
    context.expires_at.FromDatetime(context.issued_at.ToDatetime(dt.UTC) + LIFETIME + dt.timedelta(seconds=1))


def said(**changes: object) -> Callable[[zone_pb2.ZoneContext], object]:
    def change(context: zone_pb2.ZoneContext) -> None:
        context.MergeFrom(zone_pb2.ZoneContext(**changes))  # type: ignore[arg-type]

    return change


CHANGED: dict[str, tuple[Callable[[Stage], Request], Reason]] = {
    "no word": (lambda stage: stage.question(), Reason.CONTEXT_MISSING),
    "expired": (
        lambda stage: stage.resigned(stage.asked(), 0, expires(-LIFETIME - SKEW)),
        Reason.CONTEXT_EXPIRED,
    ),
    "of tomorrow": (
        lambda stage: stage.resigned(stage.asked(), 0, expires(SKEW + dt.timedelta(minutes=1))),
        Reason.CONTEXT_INVALID,
    ),
    "for too long": (lambda stage: stage.resigned(stage.asked(), 0, longer), Reason.CONTEXT_INVALID),
    "of another question": (
        lambda stage: stage.resigned(stage.asked(), 0, said(question_digest=b"other")),
        Reason.CONTEXT_INVALID,
    ),
    "for another zone": (lambda stage: stage.asked((FAR, FAR)), Reason.CONTEXT_INVALID),
    "for somebody of another zone": (
        lambda stage: stage.asked(who=Caller(f"spiffe://{FAR}/taxation/refund", "taxation", "refund")),
        Reason.CONTEXT_INVALID,
    ),
    "for a gateway": (
        lambda stage: stage.asked(who=Caller(f"spiffe://{PORT}/gateway/main", "gateway", "main")),
        Reason.CONTEXT_INVALID,
    ),
    "for nobody": (lambda stage: stage.asked(who=Caller("nobody", "", "")), Reason.CONTEXT_INVALID),
}


@pytest.mark.parametrize("how", CHANGED)
def test_a_word_does_not_stand(stage: Stage, how: str) -> None:
    make, reason = CHANGED[how]
    assert refused(lambda: stage.hear(make(stage))) is reason


def refused(hear: Callable[[], object]) -> Reason:
    with pytest.raises(HutongError) as caught:
        hear()
    return caught.value.reason


@pytest.mark.parametrize("part", ["subject", "selections", "as_of", "query_id", "explain"])
def test_who_carries_a_question_cannot_change_it(stage: Stage, part: str) -> None:
    """Whom it is about above all: the word is for one question, and not for whatever a zone in between would know."""
    request = stage.carried()
    if part == "subject":
        request.subject.value = "91350211M0000XUF47"
    elif part == "selections":
        request.selections[0].fields.append("gross_wt_kg")
    elif part == "as_of":
        request.as_of.GetCurrentTime()
    elif part == "query_id":
        request.query_id = "1" * 32
    else:
        request.explain = True
    assert refused(lambda: stage.hear(request, stage.svid(INLAND), stage.far)) is Reason.CONTEXT_INVALID


def test_who_carries_a_question_cannot_change_who_asks_and_why(stage: Stage) -> None:
    request = stage.carried()
    context = zone_pb2.ZoneContext.FromString(request.words[0].payload)
    context.request.purpose = "P-RISK"
    request.words[0].payload = context.SerializeToString()
    # Its own word names the changed one: inland can do that.
    word = zone_pb2.ZoneContext.FromString(request.words[1].payload)
    del request.words[1]
    stage.speaker.carry(stage.svid(INLAND), request, (word.zone, word.next))
    assert refused(lambda: stage.hear(request, stage.svid(INLAND), stage.far)) is Reason.CONTEXT_INVALID


def test_nobody_makes_up_a_caller_of_another_zone(stage: Stage) -> None:
    request = stage.asked(TO_FAR, by=stage.svid(INLAND))
    assert refused(lambda: stage.hear(request, stage.svid(INLAND), stage.far)) is Reason.CONTEXT_INVALID


@pytest.mark.parametrize(
    "change", [said(carries=b"another"), said(next=PORT), said(zone=INLAND)], ids=["carries", "next", "zone"]
)
def test_a_word_that_does_not_fit_the_one_before(
    stage: Stage, change: Callable[[zone_pb2.ZoneContext], object]
) -> None:
    request = stage.resigned(stage.carried(), 1, change)
    assert refused(lambda: stage.hear(request, stage.svid(INLAND), stage.far)) is Reason.CONTEXT_INVALID


def test_a_question_that_was_here_before(stage: Stage) -> None:
    request = stage.asked(TO_FAR)
    stage.speaker.carry(stage.svid(INLAND), request, (FAR, PORT))
    stage.speaker.carry(stage.svid(PORT), request, (FAR, INLAND))
    assert refused(lambda: stage.hear(request)) is Reason.ZONE_LOOP
    own = stage.asked(TO_FAR)
    stage.speaker.carry(stage.svid(INLAND), own, (FAR, INLAND))
    assert refused(lambda: stage.hear(own, stage.svid(INLAND))) is Reason.ZONE_LOOP


def test_a_question_that_went_too_far(stage: Stage) -> None:
    request = stage.asked(TO_FAR)
    for _ in range(4):
        stage.speaker.carry(stage.svid(INLAND), request, (FAR, FAR))
    assert refused(lambda: stage.hear(request, stage.svid(INLAND), stage.far)) is Reason.ZONE_LOOP


def test_the_last_word_is_the_peers(stage: Stage) -> None:
    """What somebody has overheard, or carries, opens nothing over a connection of one's own."""
    assert refused(lambda: stage.hear(stage.asked(), stage.svid(FAR))) is Reason.CONTEXT_INVALID


def test_only_a_gateway_speaks_for_its_zone(stage: Stage) -> None:
    other = stage.svid(PORT, "taxation/refund")
    assert refused(lambda: stage.hear(stage.asked(by=other), other)) is Reason.CONTEXT_INVALID


def test_a_zones_roots_speak_for_that_zone_alone(stage: Stage) -> None:
    """Port puts a root of its own making into its bundle, under which it issues a certificate in far's name."""
    folder = stage.folder / "imposter"
    folder.mkdir(exist_ok=True)
    imposter = Zone(folder, FAR)
    own = imposter.files(GATEWAY).load()
    layout = stage.zones[PORT].authority.layout
    before = layout.bundle.read_bytes()
    layout.bundle.write_bytes(before + own.bundle)
    try:
        request = stage.asked(by=own, who=Caller(f"spiffe://{FAR}/taxation/refund", "taxation", "refund"))
        assert refused(lambda: stage.hear(request, own)) is Reason.CONTEXT_INVALID
    finally:
        layout.bundle.write_bytes(before)


def test_a_zone_nobody_knows(stage: Stage) -> None:
    folder = stage.folder / "stranger"
    folder.mkdir()
    own = Zone(folder, "stranger.example").files(GATEWAY).load()
    request = stage.asked(by=own, who=Caller("spiffe://stranger.example/a/b", "a", "b"))
    assert refused(lambda: stage.hear(request, own)) is Reason.ZONE_UNKNOWN


@pytest.mark.parametrize("how", ["none", "nonsense", "too many", "another's"])
def test_certificates_that_prove_nothing(stage: Stage, how: str) -> None:
    request = stage.asked()
    chain = list(request.words[0].certificates)
    other = stage.asked(by=stage.svid(PORT, "taxation/refund")).words[0].certificates
    changed = {"none": [], "nonsense": [b"no", *chain], "too many": chain * 4, "another's": list(other)}[how]
    del request.words[0].certificates[:]
    request.words[0].certificates.extend(changed)
    assert refused(lambda: stage.hear(request)) is Reason.CONTEXT_INVALID


def answered(stage: Stage, request: Request, by: str = FAR) -> zone_pb2.SerializedZoneResponse:
    """Far's answer to port's question, as inland brings it."""
    section = exchange_pb2.Section(record_type="customs.Declaration", zone=FAR).SerializeToString()
    word = stage.speaker.answer(stage.svid(by), request, wire.embedded(2, section))
    beyond = exchange_pb2.Provenance(zone=FAR, answered_by=FAR, word=word).SerializeToString()
    return zone_pb2.SerializedZoneResponse(sections=[section], provenance=[beyond], word=word)


def test_an_answer_that_is_carried_stands(stage: Stage) -> None:
    request = stage.asked(TO_FAR)
    check(stage.port, answered(stage, request), request, INLAND)


def other_section(answer: zone_pb2.SerializedZoneResponse) -> None:
    answer.sections[0] += exchange_pb2.Section(reason="NO_PERMIT").SerializeToString()


def one_less(answer: zone_pb2.SerializedZoneResponse) -> None:
    del answer.sections[:]


def no_word(answer: zone_pb2.SerializedZoneResponse) -> None:
    answer.word = b""


def no_provenance(answer: zone_pb2.SerializedZoneResponse) -> None:
    del answer.provenance[:]


def unreadable(answer: zone_pb2.SerializedZoneResponse) -> None:
    answer.provenance[0] = b"\xff"


def of_somebody_else(answer: zone_pb2.SerializedZoneResponse) -> None:
    answer.provenance.insert(0, exchange_pb2.Provenance(zone="../x", answered_by="../x").SerializeToString())


def too_long(answer: zone_pb2.SerializedZoneResponse) -> None:
    one = exchange_pb2.Provenance(zone="a.example", answered_by=FAR, word=answer.word).SerializeToString()
    for _ in range(4):
        answer.provenance.insert(0, one)


def too_large(answer: zone_pb2.SerializedZoneResponse) -> None:
    answer.provenance[0] += exchange_pb2.Provenance(gateway="x" * 100_000).SerializeToString()


SPOILT = (other_section, one_less, no_word, no_provenance, unreadable, of_somebody_else, too_long, too_large)


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_who_carries_an_answer_cannot_change_it(
    stage: Stage, spoil: Callable[[zone_pb2.SerializedZoneResponse], None]
) -> None:
    request = stage.asked(TO_FAR)
    answer = answered(stage, request)
    spoil(answer)
    assert refused(lambda: check(stage.port, answer, request, INLAND)) is Reason.ZONE_FAILED


def test_nobody_answers_in_another_zones_name(stage: Stage) -> None:
    request = stage.asked(TO_FAR)
    answer = answered(stage, request, by=INLAND)
    assert refused(lambda: check(stage.port, answer, request, INLAND)) is Reason.ZONE_FAILED
    other = answered(stage, stage.asked(TO_FAR, who=Caller(f"spiffe://{PORT}/customs/release", "customs", "release")))
    assert refused(lambda: check(stage.port, other, request, INLAND)) is Reason.ZONE_FAILED


def test_a_root_of_one_zone_lets_nobody_in_by_another_ones_name(stage: Stage) -> None:
    """At the door, where a handshake takes the roots of all: even with the name of far's authority on it."""
    folder = stage.folder / "lookalike"
    folder.mkdir()
    far = stage.zones[FAR].authority.layout
    key_of_far = x509.load_pem_x509_certificates(stage.svid(FAR).chain)[1]
    forged = Zone(folder, FAR).files(GATEWAY).load()
    identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
        key_of_far.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    )
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(forged.leaf.subject)
        .issuer_name(key_of_far.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(forged.leaf.not_valid_before_utc)
        .not_valid_after(forged.leaf.not_valid_after_utc)
    )
    for extension in forged.leaf.extensions:
        kept = not isinstance(extension.value, x509.AuthorityKeyIdentifier)
        builder = builder.add_extension(extension.value if kept else identifier, extension.critical)
    leaf = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    door = ForeignPeers(stage.known, stage.clock)
    assert door.verify(stage.svid(FAR).chain) == SpiffeId.of(FAR, "gateway", "main")
    with pytest.raises(ChainUntrusted):
        door.verify(pem_of(leaf))
    assert far.bundle.exists()


def test_a_gateway_that_was_revoked_is_not_heard(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    request = stage.asked()
    assert stage.hear(request).path == (PORT,)
    authority = stage.zones[PORT].authority
    entry = authority.current()[SpiffeId.of(PORT, "gateway", "main")]
    authority.revoke((entry.serial,), RevocationReason.KEY_COMPROMISE, now())
    stage.clock.moment += dt.timedelta(seconds=2)
    assert refused(lambda: stage.hear(request)) is Reason.CONTEXT_INVALID
