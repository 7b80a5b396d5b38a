"""Tasks on a real Ray cluster of two nodes, which are processes here: the artifacts of a local run, come what may."""

import socket
import threading
import time
from functools import partial

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from fmlib.cli import main
from fmlib.core.errors import FmlibError
from fmlib.pipeline import scheduler
from fmlib.pipeline.launchers import ray as launcher
from fmlib.pipeline.store import Artifact, Store, Task
from fmlib.studies import registry
from fmlib.studies.shared.setup import Setup

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

CPU = torch.device("cpu")
START = launcher.RayPool.start
#: A node that does not answer for a second is dead.
HEALTH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 250, "health_check_failure_threshold": 4}


@pytest.fixture(scope="module")
def nodes():
    """A cluster of two nodes, one processor each; the head is the first."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def work(folder, number, inputs, checkpoint):
    """Say on which node this runs; on the doomed one it never ends."""
    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"
    (folder / f"{number} {node}").touch()
    while node == (folder / "doomed").read_text():
        time.sleep(0.05)
    return Artifact({"sum": np.array(number + sum(int(item.arrays["sum"]) for item in inputs))})


def plan(folder):
    """A task that needs three others."""

    def toy(number, *inputs):
        return Task("toy", f"task {number}", {"number": number}, partial(work, folder, number), inputs)

    return [toy(4, *(toy(number) for number in (1, 2, 3)))]


def fails(number, inputs, checkpoint):
    raise FmlibError("an error that the user can correct") if number else ZeroDivisionError("of the programmer")


def failing(number):
    return [Task("toy", "that fails", {}, partial(fails, number), ())]


def test_experiments_give_the_artifacts_of_a_local_run(nodes, tmp_path):
    from conftest import files, small

    setup, chosen = Setup(small(epochs=1), 0, CPU, progress=False), registry.experiments(["architectures"])
    registry.run(chosen, setup, Store(tmp_path / "local", CPU), 1)
    store = Store(tmp_path / "cluster", CPU)
    registry.run(chosen, setup, store, cluster=launcher.RayCluster(nodes.address))
    assert files(tmp_path / "local") == files(tmp_path / "cluster")
    assert all(store.has(task) for experiment in chosen for task in experiment.tasks(setup))


def test_an_error_on_a_node_is_one_line(nodes, tmp_path, capsys):
    with launcher.RayCluster(nodes.address) as cluster:
        for number, message in ((1, "^an error that the user can correct$"), (0, "failed on a node: its traceback")):
            with pytest.raises(FmlibError, match=message):
                scheduler.compute(partial(failing, number), Store(tmp_path, CPU), 2, launch=cluster.launch)
            assert ("ZeroDivisionError: of the programmer" in capsys.readouterr().err) == (number == 0)
            assert not list(tmp_path.glob(".probe*"))


def test_a_node_that_is_killed_loses_nothing(nodes, tmp_path):
    from conftest import files

    folder, (second,) = tmp_path / "begun", nodes.worker_nodes
    folder.mkdir()
    (folder / "doomed").write_text(second.node_id)

    def kill():
        """Kill the second node once it computes a task."""
        while not any(path.name.endswith(second.node_id) for path in folder.iterdir()):
            time.sleep(0.05)
        nodes.remove_node(second, allow_graceful=False)

    noted = []
    thread = threading.Thread(target=kill)
    thread.start()
    with launcher.RayCluster(nodes.address) as cluster:
        assert cluster.slots == 2
        store = Store(tmp_path / "cluster", CPU, note=noted.append)
        scheduler.compute(partial(plan, folder), store, cluster.slots, launch=cluster.launch)
    thread.join()
    assert [line for line in noted if line.endswith("died: computing it again")]
    scheduler.compute(partial(plan, folder), Store(tmp_path / "local", CPU))
    assert files(tmp_path / "local") == files(tmp_path / "cluster")
    assert int(store.get(plan(folder)[0]).arrays["sum"]) == 10


@pytest.mark.parametrize("listens", [False, True])
def test_a_head_that_does_not_answer_is_one_line(listens, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(launcher, "PATIENCE", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        if not listens:
            server.close()
        code = main(["run", "networks", "--store", str(tmp_path), "--launcher", f"ray:{address}"])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert line.startswith(f"fmlib: no Ray cluster answers at {address} ({'silence' if listens else ''}")


FACTORY = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4))
"""


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_report_has_the_masks_of_a_local_run(nodes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fmlib.explain.fourier_mask.LARGEST_BATCH", 2)
    monkeypatch.setattr("fmlib.explain.command.SHARD", 2)
    (tmp_path / "sharded_factories.py").write_text(FACTORY)
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(f"pictures/{number}.png")
    words = ["explain", "--model", "sharded_factories:make", "--images", "pictures", "--size", "16", "--steps", "4"]
    begun = []
    monkeypatch.setattr(launcher.RayPool, "start", lambda pool, task: begun.append(task.name) or START(pool, task))
    assert main([*words, "--out", "local", "--quiet"]) == 0
    assert main([*words, "--out", "cluster", "--quiet", "--launcher", f"ray:{nodes.address}"]) == 0
    assert begun == ["masks of images 1 to 2", "masks of images 3 to 4", "masks of images 5 to 5"]
    local, cluster = (
        safetensors.numpy.load_file(tmp_path / name / "masks.safetensors") for name in ("local", "cluster")
    )
    assert local.keys() == cluster.keys()
    for name, masks in local.items():
        np.testing.assert_allclose(cluster[name], masks, atol=1e-5)
    assert not list(tmp_path.glob(".*-parts"))
