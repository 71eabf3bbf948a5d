"""What a token is made for: an rpc with all of its request, and the certificate of the system that brings it."""

import hashlib
import ssl

from hypothesis import given
from hypothesis import strategies as st

from hutong.api.authorization.v1 import authorization_pb2
from services.kit.credentials import strict
from services.kit.officers.acts import act_digest, act_nonce, thumbprint
from tests.officers.bed import CUSTOMS, METHOD, REQUEST, Bed


def test_the_digest_is_what_the_contract_says() -> None:
    content = hashlib.sha256(REQUEST.SerializeToString(deterministic=True)).digest()
    expected = hashlib.sha256(b"hutong act\n" + METHOD.encode() + b"\n" + content).digest()
    assert act_digest(METHOD, REQUEST) == expected
    assert strict.decode(act_nonce(METHOD, REQUEST)) == expected


def test_the_token_itself_is_no_part_of_it_and_stays_where_it_was() -> None:
    request = authorization_pb2.ApproveAuthorizationRequest()
    request.CopyFrom(REQUEST)
    request.officer_token = "token"
    assert act_digest(METHOD, request) == act_digest(METHOD, REQUEST)
    assert request.officer_token == "token"


def test_a_request_that_brings_no_token_has_a_digest_too() -> None:
    request = authorization_pb2.GetAuthorizationRequest(authorization_id="a-1")
    assert act_digest(METHOD, request) != act_digest(METHOD, authorization_pb2.GetAuthorizationRequest())


def test_what_a_node_does_not_know_counts_as_well() -> None:
    longer = REQUEST.SerializeToString() + b"\xf8\x07\x01"  # field 127, a varint
    unknown = authorization_pb2.ApproveAuthorizationRequest.FromString(longer)
    assert act_digest(METHOD, unknown) != act_digest(METHOD, REQUEST)


@given(st.text(), st.binary(), st.text(alphabet="/.abc"))
def test_no_two_acts_have_one_digest(authorization_id: str, scope_digest: bytes, method: str) -> None:
    request = authorization_pb2.ApproveAuthorizationRequest(
        authorization_id=authorization_id, scope_digest=scope_digest
    )
    same = (method, request) == (METHOD, REQUEST)
    assert (act_digest(method, request) == act_digest(METHOD, REQUEST)) == same


def test_the_thumbprint_is_of_the_first_certificate_of_a_chain(bed: Bed) -> None:
    chain = bed.certificate(CUSTOMS)
    end = b"-----END CERTIFICATE-----\n"
    leaf = chain[: chain.index(end) + len(end)]
    assert leaf != chain
    der = ssl.PEM_cert_to_DER_cert(leaf.decode())
    assert thumbprint(chain) == thumbprint(leaf) == strict.encode(hashlib.sha256(der).digest())
