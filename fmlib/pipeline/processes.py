"""Processes that start at once: on Linux they are forked from a server that has imported what they need.

The server has computed nothing, as only such a process can be forked safely. On other systems a process is spawned.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from typing import Any

FORKED = sys.platform == "linux"

#: What the server imports. Each process would need many seconds for it; optimisers import `torch._dynamo` when they are
#: first used.
PRELOADED = ["torch._dynamo", "torchattacks", "fmlib.pipeline.store"]


def context() -> Any:
    """The `multiprocessing` context that makes processes. It waits until the server is ready; Ctrl-C ends the wait."""
    if not FORKED:
        return multiprocessing.get_context("spawn")
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(PRELOADED)
    with inherited_interrupts_blocked():
        forkserver.ensure_running()
    nothing = made.Process()
    nothing.start()
    nothing.join()
    return made


def end_with_parent() -> None:
    """From now on this process ends when the one that made it does, however that ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def inherited_interrupts_blocked() -> Iterator[None]:
    """A process that is started within the block never sees Ctrl-C, not even during its imports; this one, after it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # the first process would start it, and that unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
