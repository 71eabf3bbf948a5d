"""A bare grpc.aio department: reads one row by raw sqlite3 and sends the stored bytes.

`python -m bench.peers.bare_department RECORD_TYPE DATABASE CERTIFICATE BUNDLE PORT`. Mutual TLS; no policy, no log, no
receipt, no trace, no envelope, no errors, no limits.
"""

import sqlite3
import sys
from pathlib import Path

# Sets the TLS floor before gRPC is loaded.
import services.kit  # noqa: F401  # pyright: ignore[reportUnusedImport]

# isort: split
import grpc.aio
import uvloop

from bench.peers import bare_server, contract
from certs.svid import SvidFiles
from services.kit.records import catalogue
from services.kit.records.tables import table_name


def statement(record_type: str) -> str:
    """Write the statement that reads the record about an enterprise."""
    kind = catalogue.load().get(record_type)
    column = kind.subjects["cn.uscc"][0].name
    return f"SELECT _body FROM {table_name(kind)} WHERE {column} = ? AND _superseded_at IS NULL"


class Department:
    """One table."""

    def __init__(self, record_type: str, database: Path) -> None:
        self._connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        self._statement = statement(record_type)

    async def get(self, request: bytes, _context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        """Answer."""
        row = self._connection.execute(self._statement, (contract.uscc_of(request),)).fetchone()
        body: bytes = row[0]
        return body


async def main(record_type: str, database: Path, files: SvidFiles, port: int) -> None:
    """Serve until killed."""
    department = Department(record_type, database)
    await bare_server.serve(contract.get(contract.agency_of(record_type)), department.get, files, port)


if __name__ == "__main__":
    certificate = Path(sys.argv[3])
    identity = SvidFiles(certificate, certificate, Path(sys.argv[4]))
    uvloop.run(main(sys.argv[1], Path(sys.argv[2]), identity, int(sys.argv[5])))
