"""Files are complete or absent, a disk that refuses them is one line, and signed JSON notices every change."""

from __future__ import annotations

import errno
import os

import pytest
import scripts
from hypothesis import given
from hypothesis import strategies as st

from fmlib.core.errors import FmlibError
from fmlib.pipeline.disk.files import MENDS, cannot_write, mend, read_signed, signed_json, write_bytes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.text().filter(lambda name: name != "sha256"), JSON, max_size=4))
def test_a_signed_record_is_read_as_it_was(record):
    found = read_signed(signed_json(record).encode())
    assert found == record
    assert list(found) == list(record)


@pytest.mark.parametrize("flip", [0x01, 0x0A ^ 0x0D, 0x0A ^ 0x20, 0x80])
def test_any_flipped_byte_of_a_signed_record_is_noticed(flip):
    whole = signed_json({"a": [1, 2.5, None], "b": {"c": "\u03bb", "d": True}}, "checksum").encode()
    for position in range(len(whole)):
        with pytest.raises(ValueError, match=r".*"):
            read_signed(whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :], "checksum")
    for length in range(len(whole)):
        with pytest.raises(ValueError, match=r".*"):
            read_signed(whole[:length], "checksum")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_refuses_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, code, call):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    write_bytes(tmp_path / "file", b"old")
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(FmlibError, match=r"cannot write .*file \(.*\): .*, then run again to go on$") as caught:
        write_bytes(tmp_path / "file", b"new")
    assert MENDS[errno.errorcode[code]] in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_a_path_that_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "below", tmp_path / "file" / "below" / "further"):
        with pytest.raises(FmlibError, match=r"cannot write .*a file is in its place"):
            write_bytes(path, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_interrupted_write_leaves_no_draft(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_are_not_about_the_disk():
    assert mend(OSError("no number")) is None
    assert mend(OSError(errno.EPIPE, "Broken pipe")) is None
    assert "check the disk" in str(cannot_write("x", OSError("odd")))


LIMITED = """
import os, resource, sys
from pathlib import Path
from fmlib.core.errors import FmlibError
from fmlib.pipeline.disk.files import write_bytes

path = Path(sys.argv[1])
write_bytes(path, b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
try:
    write_bytes(path, bytes(100_000))
except FmlibError as error:
    print(error)
print(path.read_bytes(), os.listdir(path.parent))
"""


def test_a_real_limit_on_the_size_of_files(tmp_path):
    (tmp_path / "place").mkdir()
    done = scripts.run(LIMITED, str(tmp_path / "place" / "file"))
    assert done.returncode == 0, done.stderr
    said, left = done.stdout.splitlines()
    assert "File too large" in said
    assert "ulimit -f" in said
    assert left == "b'old' ['file']"
