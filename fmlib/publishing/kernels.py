"""Kernels that start at once, where processes can be forked: for papermill, which executes the chapters."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

from fmlib.pipeline import processes

#: What every chapter imports, and a kernel.
processes.PRELOADED += [__name__, "ipykernel.kernelapp", "fmlib.publishing.notebook", "fmlib.studies.registry"]

NAME = "forked"


class ForkedProcess:
    """A process as `LocalProvisioner` knows it: what it uses of `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, process: BaseProcess) -> None:
        self.process, self.pid = process, process.pid
        self.kill, self.terminate = process.kill, process.terminate

    def poll(self) -> int | None:
        """The exit code, None while the process runs."""
        return self.process.exitcode

    def wait(self) -> int | None:
        """Wait for the end of the process; returns its exit code."""
        self.process.join()
        return self.process.exitcode

    def send_signal(self, signal: int) -> None:
        """Send a signal to the process."""
        if self.pid is not None and self.poll() is None:
            os.kill(self.pid, signal)


class ForkedProvisioner(LocalProvisioner):
    """Starts a kernel as a forked process."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start the kernel that a command line describes."""
        options = cmd[cmd.index("ipykernel_launcher") + 1 :]
        folder = kwargs.get("cwd") or os.getcwd()
        process = processes.context().Process(target=_serve, args=(options, folder, kwargs["env"]))
        process.start()
        self.process = ForkedProcess(process)  # type: ignore[assignment]
        self.pid, self.cwd = process.pid, folder
        return self.connection_info


class ForkedKernelManager(AsyncKernelManager):
    """A manager whose kernel is a forked process."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        place = EntryPoint(NAME, f"{__name__}:{ForkedProvisioner.__name__}", KernelProvisionerFactory.GROUP_NAME)
        KernelProvisionerFactory.instance().provisioners[NAME] = place
        assert self.kernel_spec is not None
        self.kernel_spec.metadata = {"kernel_provisioner": {"provisioner_name": NAME}}


def _serve(options: list[str], folder: str, environment: dict[str, str]) -> None:
    """Run a kernel in this process until it is shut down."""
    processes.end_with_parent()
    from ipykernel.kernelapp import launch_new_instance

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    # Two chapters run at a time: threads of several processes on few cores wait for each other.
    torch.set_num_threads(1)
    launch_new_instance(options)


def options() -> dict[str, Any]:
    """What papermill needs to start kernels in this way, nothing where processes cannot be forked."""
    return {"kernel_manager_class": ForkedKernelManager} if processes.FORKED else {}
