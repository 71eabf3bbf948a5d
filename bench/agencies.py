"""More agencies than there are, to see what their number costs: made up, each with a record type, a room, a policy.

Written to a folder and no part of the product: `bench.wider` runs nodes that find them. A new agency needs no more than
this: a contract, an access list, a policy, and a migration for its table.
"""

import subprocess
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from bench.results import REPOSITORY

RECORD: Final = "Filing"

_CONTRACT = """\
syntax = "proto3";
package hutong.api.{agency}.v1;
import "hutong/api/common/v1/common.proto";
import "hutong/api/schema/v1/options.proto";
message Filing {{
  option (hutong.api.schema.v1.record) = {{
    owner: "{agency}"
    title: "Filing"
    local_title: "备案"
    pattern: "filings/{{filing_no}}"
    fact_time: "filed_on"
  }};
  hutong.api.common.v1.Envelope envelope = 1;
  string filing_no = 2 [(hutong.api.schema.v1.field) = {{
    share: SHARE_CLASS_OPEN grade: GRADE_PUBLIC key: true indexed: true
  }}];
  string uscc = 3 [(hutong.api.schema.v1.field) = {{
    share: SHARE_CLASS_OPEN grade: GRADE_PUBLIC subject: "cn.uscc" indexed: true
  }}];
  hutong.api.common.v1.Date filed_on = 4 [(hutong.api.schema.v1.field) = {{
    share: SHARE_CLASS_OPEN grade: GRADE_PUBLIC indexed: true
  }}];
  string remark = 5 [(hutong.api.schema.v1.field) = {{ share: SHARE_CLASS_CONDITIONAL grade: GRADE_INTERNAL }}];
}}
"""

_SERVICE = """\
syntax = "proto3";
package hutong.api.{agency}.v1;
import "google/protobuf/timestamp.proto";
import "hutong/api/exchange/v1/exchange.proto";
import "hutong/api/log/v1/log.proto";
import "hutong/api/{agency}/v1/filing.proto";
service FilingService {{
  rpc GetFiling(GetFilingRequest) returns (GetFilingResponse);
}}
message GetFilingRequest {{
  string name = 1;
  hutong.api.exchange.v1.RequestContext context = 2;
  google.protobuf.Timestamp as_of = 3;
  repeated string fields = 4;
}}
message GetFilingResponse {{
  Filing filing = 1;
  repeated hutong.api.exchange.v1.FieldDecision decisions = 2;
  hutong.api.log.v1.Receipt receipt = 15;
}}
"""

_ROOM = '''\
"""An agency made up for a measurement."""

from pathlib import Path

from hutong.api.{agency}.v1 import service_pb2
from services.kit.department import Room

ROOM = Room("{agency}", service_pb2.DESCRIPTOR.services_by_name["FilingService"], Path(__file__).parent)
'''

_ACCESS = """\
hutong.api.exchange.v1.RecordSourceService:
  Fetch: [gateway/*]
  FetchSession: [gateway/*]
  Watch: [quality/*]
  Describe: [gateway/*, operator/*]
hutong.api.exchange.v1.ReadsService:
  FetchReads: [gateway/*, enterprise/*]
hutong.api.exchange.v1.InboxService:
  ListInboxEvents: [{agency}/*]
hutong.api.{agency}.v1.FilingService:
  GetFiling: [quality/*]
"""

_POLICY = """\
@id("R01-{agency}")
@title("Unconditional class")
@basis("CN-PUBLIC-REGISTER")
@until("2099-12-31T23:59:59+08:00")
@retain("PT24H")
permit (principal, action == Hutong::Action::"read", resource in Hutong::ShareClass::"open")
when {{ context.purpose == "P-PUBLIC-REG" }};
"""

_FIRST = '''\
"""The table of filings, and those that every department has."""

import sqlalchemy as sa

from services.kit.records import first_revision as first

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Create every table."""
    first.create_own_tables()
    first.create_record_table(
        "filing",
        sa.Column("filing_no", first.TEXT),
        sa.Column("uscc", first.TEXT),
        sa.Column("filed_on", first.TEXT),
        whole=("uscc",),
        current=("filed_on",),
    )
'''


def names(count: int) -> Sequence[str]:
    """Name the first agencies."""
    return [f"extra{number:02d}" for number in range(1, count + 1)]


def write(folder: Path, count: int) -> None:
    """Write agencies: contracts with their generated code below `folder`/proto, rooms below `folder`/services."""
    for agency in names(count):
        contracts = folder / "proto" / "hutong" / "api" / agency / "v1"
        room = folder / "services" / agency
        versions = room / "migrations" / "versions"
        for made in (contracts, room / "policy", versions):
            made.mkdir(parents=True)
        (contracts / "filing.proto").write_text(_CONTRACT.format(agency=agency), encoding="utf-8")
        (contracts / "service.proto").write_text(_SERVICE.format(agency=agency), encoding="utf-8")
        (room / "__init__.py").write_text('"""An agency made up for a measurement."""\n', encoding="utf-8")
        (room / "service.py").write_text(_ROOM.format(agency=agency), encoding="utf-8")
        (room / "access.yaml").write_text(_ACCESS.format(agency=agency), encoding="utf-8")
        (room / "policy" / f"{agency}.cedar").write_text(_POLICY.format(agency=agency), encoding="utf-8")
        (versions / "0001_initial.py").write_text(_FIRST, encoding="utf-8")
        inbox = "services/publicsecurity/migrations/versions/0002_inbox.py"
        (versions / "0002_inbox.py").write_text((REPOSITORY / inbox).read_text(encoding="utf-8"), encoding="utf-8")
    _generate(folder / "proto")


def _generate(protos: Path) -> None:
    includes = [f"--proto_path={each}" for each in (protos, REPOSITORY / "proto", files("grpc_tools") / "_proto")]
    found = [path.relative_to(protos).as_posix() for path in sorted(protos.rglob("*.proto"))]
    command = [sys.executable, "-m", "grpc_tools.protoc", *includes, f"--python_out={protos}", *found]
    subprocess.run(command, check=True)
