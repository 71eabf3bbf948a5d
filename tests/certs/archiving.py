"""A process of its own that archives a register and is killed meanwhile, again and again; it looks at what is left."""

import datetime as dt
import os
import resource
import signal
import sys
from pathlib import Path

from certs.register import Register


def _lines(register: Register) -> list[bytes]:
    return b"".join(path.read_bytes() for path in (*register.archives, register.path)).splitlines()


def stopped_at_any_byte(path: Path, now: dt.datetime, step: int) -> None:
    """Archive again and again, each time killed by the kernel when a file grows beyond some byte; tell how it went."""
    whole, archive = path.read_bytes(), path.with_name("issued-2025.jsonl")
    killed = 0
    for limit in range(0, len(whole), step):
        path.write_bytes(whole)
        # One archive is there already, the other is not.
        archive.write_bytes(b"")
        path.with_name("issued-2026.jsonl").unlink(missing_ok=True)
        if (child := os.fork()) == 0:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            Register(path).archive(now)
            os._exit(0)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        after = Register(path)
        assert {entry.serial for entry in after.everything()} == {e.serial for e in after.entries()} | {
            entry.serial for each in after.archives for entry in Register(each).entries()
        }
        assert len(after.everything()) == whole.count(b'"issued"'), "nothing is lost"
        after.archive(now)
        assert sorted(_lines(after)) == sorted(whole.splitlines()), "and nothing is doubled"
    sys.stdout.write(str(killed))


if __name__ == "__main__":
    stopped_at_any_byte(Path(sys.argv[1]), dt.datetime.fromisoformat(sys.argv[2]), int(sys.argv[3]))
