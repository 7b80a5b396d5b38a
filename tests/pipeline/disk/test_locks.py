"""Locks: one holder at a time, none once the holder has died, and no file that stays."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time

import pytest
import scripts

from fmlib.core.errors import FmlibError
from fmlib.pipeline.disk.locks import is_locked, locked


def test_a_lock_is_held_within_the_block_and_its_file_goes(tmp_path):
    path = tmp_path / "kind" / "key.lock"
    assert not is_locked(path)
    assert not path.parent.exists()
    with locked(path) as held:
        assert held
        assert is_locked(path)
        with locked(path) as again:
            assert not again
        assert is_locked(path)
    assert not is_locked(path)
    assert list(path.parent.iterdir()) == []


def test_a_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / "lock"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_who_waits_says_so_once_and_goes_on_when_the_lock_is_free(tmp_path):
    events, waiting, holding = [], threading.Event(), threading.Event()

    def hold():
        with locked(tmp_path / "lock"):
            holding.set()
            waiting.wait(300)
            events.append("first ends")

    def wait():
        events.append("waits")
        waiting.set()

    holder = threading.Thread(target=hold)
    holder.start()
    holding.wait(300)
    with locked(tmp_path / "lock", wait) as held:
        assert held
        events.append("second begins")
    holder.join()
    assert events == ["waits", "first ends", "second begins"]
    assert list(tmp_path.iterdir()) == []


def test_many_holders_never_meet(tmp_path):
    """Files are removed and made anew all the time; each holder adds to a number that only a lock protects."""
    number = [0]

    def add():
        for _ in range(20):
            with locked(tmp_path / "lock", lambda: None):
                before = number[0]
                time.sleep(0.0001)
                number[0] = before + 1

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert number == [80]


DYING = """
import os, signal, sys
from pathlib import Path
from fmlib.pipeline.disk.locks import locked

with locked(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_holder_holds_nothing(tmp_path):
    path = tmp_path / "lock"
    assert scripts.run(DYING, str(path)).returncode == -signal.SIGKILL
    assert path.exists()
    assert not is_locked(path)
    with locked(path) as held:
        assert held
    assert not path.exists()


def test_a_lock_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FmlibError, match="cannot write"), locked(tmp_path / "file" / "lock"):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(FmlibError, match="permissions"), locked(tmp_path / "lock"):
        pass


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_without_flock_the_file_is_the_lock(tmp_path, monkeypatch):
    """As on some network file systems."""

    def missing(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", missing)
    path = tmp_path / "lock"
    with locked(path) as held:
        assert held
        assert is_locked(path)
        with locked(path) as again:
            assert not again
    assert not is_locked(path)
    with locked(path) as held:
        assert held
    assert list(tmp_path.iterdir()) == []
