"""A file is read when it changes, and what it said before is forgotten when it cannot be read."""

import os
from pathlib import Path

import pytest

from services.kit.followed import Followed


def test_it_is_read_again_when_it_changes_and_not_otherwise(tmp_path: Path) -> None:
    path, read = tmp_path / "file", list[bytes]()

    def parse(data: bytes) -> int:
        read.append(data)
        return int(data)

    file = Followed(path, 4, parse)
    with pytest.raises(FileNotFoundError):
        file.read()
    for content, value in ((b"1", 1), (b"22", 22), (b"3", 3)):
        path.write_bytes(content)
        os.utime(path, ns=(value, value))
        assert [file.read(), file.read()] == [value, value]
    assert read == [b"1", b"22", b"3"]
    path.write_bytes(b"x")
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            file.read()
    path.write_bytes(b"3")
    os.utime(path, ns=(3, 3))
    assert file.read() == 3, "after an error it is read again, although it is the file it was"
    assert read[-1] == b"3"
    assert len(read) == 6


def test_what_is_too_large_or_no_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with pytest.raises(ValueError, match="too large"):
        Followed(path, 4, int).read()
    with pytest.raises(ValueError, match="no file"):
        Followed(tmp_path, 1 << 20, int).read()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no file"):
        Followed(tmp_path / "pipe", 4, int).read()
