"""What `--launcher` takes, and one line where Ray is missing or no cluster answers."""

import sys

import pytest

from fmlib.core.errors import FmlibError
from fmlib.pipeline.launchers import ray
from fmlib.pipeline.results import benchmark
from fmlib.publishing import build


def test_the_words_of_the_launcher():
    assert ray.cluster("local") is None
    assert ray.cluster("ray") == ray.RayCluster("auto", 1, None)
    assert ray.cluster("ray:head:6379", 2, 0.5) == ray.RayCluster("head:6379", 2, 0.5)
    assert [ray.cluster("ray", device=name).gpus for name in ("auto", "cpu", "cuda")] == [None, 0, 1]


@pytest.mark.parametrize("words", ["", "rey", "ray:", "ray:head", "ray:head:x", "local:1", "ray://head:10001"])
def test_words_that_are_not_understood(words):
    with pytest.raises(FmlibError, match="--launcher must be local, ray or ray:HOST:PORT"):
        ray.cluster(words)


@pytest.mark.parametrize(
    ("launcher", "cpus", "gpus"),
    [("local", 1, None), ("local", None, 0.5), ("ray", 0, None), ("ray", None, -1), ("ray", None, 1.5)],
)
def test_shares_that_make_no_sense(launcher, cpus, gpus):
    with pytest.raises(FmlibError, match="-per-task"):
        ray.cluster(launcher, cpus, gpus)


def test_tasks_that_fit_on_a_node():
    assert ray.slots({"CPU": 8}, 3, 0) == 2
    assert ray.slots({"CPU": 8}, 1, 1) == 0
    assert ray.slots({"CPU": 8, "GPU": 3}, 1, 0.4) == 6
    assert ray.slots({"CPU": 64, "GPU": 4}, 1, 2) == 2


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(FmlibError, match="pip install 'fmlib\\[ray\\]'"), ray.cluster("ray"):
        pass


def test_the_cost_on_the_page_is_that_of_the_benchmark():
    rows = benchmark("solvers")["rows"]
    (row,) = (row for row in rows if (row["case"], row["solver"]) == ("imagenet-160", "slp-60"))
    text = " ".join((build.BOOK / "clusters.md").read_text().split())
    assert f"{row['seconds']:.2f} s per image" in text
    assert f"n = {row['images']} images" in text
    assert f"= {50_000 * row['seconds'] / 3600:.1f} hours" in text
