"""WCO messages: recognised by name whatever their dress, and nothing an attacker writes is expanded or fetched."""

import time
from pathlib import Path

import pytest

from adapters import wco
from adapters.document import WcoSpec
from adapters.elements import Elements, compiled
from adapters.rows import Cause, Row, Unreadable
from adapters.wco import Wco
from services.kit.errors import InvalidArgument, Reason
from tests.adapters.specimens import split

MD = "urn:wco:datamodel:WCO:DocumentMetaData-DMS:2"
DEC = "urn:wco:datamodel:WCO:DEC-DMS:2"
SPEC = WcoSpec(kind="wco")


def declaration(function: str = "9", kind: str = "IMA", more: str = "") -> str:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<md:MetaData xmlns:md="{MD}" xmlns="{DEC}"><md:WCOTypeName>DEC</md:WCOTypeName>
<Declaration><FunctionCode>{function}</FunctionCode><FunctionalReferenceID>REF 1</FunctionalReferenceID>
<ID>26GB1</ID><TypeCode>{kind}</TypeCode>{more}</Declaration></md:MetaData>"""


def response(function: str, more: str = "") -> str:
    body = f"<Response><FunctionCode>{function}</FunctionCode>{more}</Response>"
    return f"<MetaData><WCOTypeName>RES</WCOTypeName>{body}</MetaData>"


def read(text: str | bytes) -> Row | Unreadable:
    return wco.again(SPEC, "message.xml", text if isinstance(text, bytes) else text.encode())


def row(text: str | bytes) -> Row:
    found = read(text)
    assert isinstance(found, Row), found
    return found


WRAPPED = f"""<v1:submit xmlns:v1="http://a.example"><v1:common><v1:id>x</v1:id></v1:common>
<v1:detail>{declaration().partition("?>")[2]}</v1:detail></v1:submit>"""

BARE = declaration().partition("?>")[2].replace(f' xmlns:md="{MD}" xmlns="{DEC}"', "").replace("md:", "")


@pytest.mark.parametrize(
    "text",
    [
        declaration(),
        "\ufeff" + declaration(),
        declaration().replace("UTF-8", "UTF-16").encode("utf-16"),
        declaration().replace("md:", "x9:").replace("xmlns:md", "xmlns:x9"),
        WRAPPED,
        BARE,
        BARE.replace("MetaData", "_2MetaData"),
    ],
    ids=["plain", "mark", "utf-16", "other-prefix", "wrapped", "no-namespace", "mangled"],
)
def test_a_declaration_is_one_in_any_dress(text: str | bytes) -> None:
    found = row(text)
    assert found.values.get("FunctionalReferenceID") == "REF 1"
    assert found.original == (text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (declaration("13", "COR"), "amendment: of 26GB1 (COR, function 13)"),
        (declaration("13", "INV"), "cancellation: of 26GB1"),
        (declaration("13", "GPR"), "goods presentation: of 26GB1"),
        (declaration("46", "IMA"), "declaration of function 46: of 26GB1"),
        (response("01", "<Declaration><ID>26GB2</ID></Declaration>"), "notification DMSACC: of 26GB2"),
        (response("13"), "notification DMSTAX: of no declaration"),
        (response("77"), "notification function 77: "),
        ("<MetaData><WCOTypeName>RES</WCOTypeName></MetaData>", "empty MetaData: "),
        ('<i:inventoryLinkingMovementRequest xmlns:i="urn:x"/>', "inventoryLinkingMovementRequest: not a message"),
    ],
)
def test_what_is_no_declaration_is_named(text: str, name: str) -> None:
    found = read(text)
    assert isinstance(found, Unreadable)
    assert found.reason is Cause.NOT_A_DECLARATION
    assert found.detail.startswith(name)
    assert found.original == text.encode()


def test_malformed_xml_is_told_with_its_line() -> None:
    found = read(declaration(more="\n\n<!-- two -- dashes -->"))
    assert isinstance(found, Unreadable)
    assert (found.reason, found.detail[:6]) == (Cause.MALFORMED_XML, "line 6")


LAUGHS = """<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">
<!ENTITY e "&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;"><!ENTITY f "&e;&e;&e;&e;&e;&e;&e;&e;&e;&e;">
<!ENTITY g "&f;&f;&f;&f;&f;&f;&f;&f;&f;&f;">]>"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("what", ["laughs", "file", "network", "parameter"])
def test_entities_and_document_types_are_refused_unread(tmp_path: Path, what: str, encoding: str) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    prolog = {
        "laughs": LAUGHS,
        "file": f'<!DOCTYPE x [<!ENTITY g SYSTEM "{secret.as_uri()}">]>',
        "network": '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd" [<!ENTITY g "y">]>',
        "parameter": f'<!DOCTYPE x [<!ENTITY % p SYSTEM "{secret.as_uri()}"> %p; <!ENTITY g "y">]>',
    }[what]
    body = declaration(more="<Note>&g;</Note>").partition("?>")[2]
    text = (prolog + body).replace('<?xml version="1.0"?>', "")
    started = time.process_time()
    found = read(text.encode(encoding))
    assert isinstance(found, Unreadable)
    assert found.reason is Cause.FORBIDDEN_XML
    assert b"the secret" not in found.original
    assert time.process_time() - started < 1


def test_depth_and_size_have_limits(tmp_path: Path) -> None:
    deep = declaration(more="<a>" * 5000 + "</a>" * 5000)
    found = read(deep)
    assert isinstance(found, Unreadable)
    assert found.reason is Cause.MALFORMED_XML
    big = tmp_path / "big.xml"
    big.write_text(declaration(more=f"<Note>{'x' * 5000}</Note>"))
    (found,) = Wco(tmp_path, WcoSpec(kind="wco", max_bytes=1000))
    assert isinstance(found, Unreadable)
    assert found.reason is Cause.FILE_TOO_LARGE
    assert big.read_bytes().startswith(found.original)


def test_a_folder_is_read_in_the_order_of_names_and_leaves_other_files_alone(tmp_path: Path) -> None:
    for name in ("b/2.XML", "a/10.xml", "a/9.xml", "a/readme.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(declaration())
    (tmp_path / "broken.xml").write_text("<a>")
    (tmp_path / "elsewhere.xml").symlink_to(tmp_path / "a" / "9.xml")
    source = Wco(tmp_path, SPEC)
    rows, none = split(source)
    assert [r.position for r in rows] == ["a/10.xml", "a/9.xml", "b/2.XML"]
    assert [u.position for u in none] == ["broken.xml"]
    assert source.done == source.total


def test_a_file_alone_is_a_source_and_nothing_is_told(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text(declaration())
    assert [r.position for r in split(Wco(path, SPEC))[0]] == ["one.txt"]
    with pytest.raises(InvalidArgument, match="cannot be read") as caught:
        Wco(tmp_path / "none.xml", SPEC)
    assert caught.value.reason is Reason.MALFORMED_REQUEST
    with pytest.raises(InvalidArgument, match=r"no file in it matches '\*\.xml'"):
        Wco(tmp_path, SPEC)


GOODS = """<Goods><No>1</No><Class><ID>85109000</ID><Kind>TSP</Kind></Class><Class><ID>00</ID><Kind>TRC</Kind></Class>
<Amount currencyID=" GBP ">12.50</Amount></Goods>
<Goods><No>2</No><Name>Tea <!-- black --> leaves</Name><Amount/></Goods>"""


def test_paths_find_elements_attributes_and_conditions() -> None:
    values = row(declaration(more=GOODS)).values
    assert values.get("Goods/No") == "1"
    assert list(values.texts("Goods/No")) == ["1", "2"]
    first, second = values.each("Goods")
    assert first.get("Class[Kind='TRC']/ID") == "00"
    assert first.get("Class[2]/ID") == "00"
    assert first.get("Class[Kind='XYZ']/ID") is None
    assert first.get("Amount/@currencyID") == "GBP"
    assert second.get("Amount") is None
    assert second.get("Name") == "Tea  leaves"
    assert second.get("Amount/@currencyID") is None
    assert isinstance(first, Elements)


@pytest.mark.parametrize("path", ["", "/A", "A//B", "A[", "A[0]", "A[b=c]", "@x/A", "A/@", "A b", "A[b='c']d"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no path of elements"):
        compiled(path)
