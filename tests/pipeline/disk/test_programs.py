"""Programs of `torch.export`: those of ordinary models are read, and no file can have code run."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from fmlib.core.errors import FmlibError
from fmlib.pipeline.disk.programs import load_program

RAN: list[str] = []


class Runs:
    """An object whose pickle runs code when it is loaded."""

    def __reduce__(self):
        return RAN.append, ("pickle",)


def saved(path: Path, model: nn.Module) -> dict[str, bytes]:
    """Write the model as a program; returns the members of the archive."""
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model.eval(), (torch.rand(2, 3, 16, 16),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


class Attends(nn.Module):
    """A layer whose sizes depend on the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def forward(self, images):
        rows = images.mean(1)  # (B, 16, 16)
        query, key, value = self.qkv(rows.reshape(-1, 16)).reshape(rows.shape[0], 16, 3, 16).unbind(2)
        return nn.functional.scaled_dot_product_attention(query, key, value).mean(1)


MODELS = {
    "convolutions": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "attention": Attends(),
}


@pytest.mark.parametrize("name", MODELS)
def test_ordinary_programs_are_read(tmp_path, name):
    saved(tmp_path / "model.pt2", MODELS[name])
    images = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(load_program(tmp_path / "model.pt2").module()(images), MODELS[name](images))


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """The members of a program, and the one that holds its graph."""
    parts = saved(tmp_path_factory.mktemp("program") / "model.pt2", MODELS["convolutions"])
    return parts, next(name for name in parts if "/models/" in name)


def refused(tmp_path, parts, message):
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
    RAN.clear()
    with pytest.raises(FmlibError, match=message) as caught:
        load_program(path)
    assert "\n" not in str(caught.value)
    assert not RAN


def edited(members, change) -> dict[str, bytes]:
    """The members with another graph."""
    parts, name = members
    graph = json.loads(parts[name])
    change(graph["graph_module"]["graph"], graph)
    return parts | {name: json.dumps(graph).encode()}


GRAPHS = {
    "a function of the system": lambda g, _: g["nodes"][0].update(target="torch.os.system"),
    "a function by attributes": lambda g, _: g["nodes"][0].update(target="_operator.attrgetter"),
    "an operator that opens files": lambda g, _: g["nodes"][0].update(target="torch.ops.aten.from_file.default"),
    "a method of an operator": lambda g, _: g["nodes"][0].update(target="torch.ops.aten.__class__.mro"),
    "an attribute of an operator": lambda g, _: g["nodes"][0].update(target="torch.ops.aten.relu.__init__"),
    "an extension": lambda g, _: g["nodes"][0].update(target="#x:y"),
    "a name with code": lambda g, _: g["inputs"][0]["as_tensor"].update(name="x=print(1)"),
    "a node with code": lambda g, _: g["nodes"][0].update(name="x; import os"),
    "an expression": lambda g, _: g.update(sym={"as_expr": {"expr_str": "__import__('os').getpid()"}}),
    "an expression of characters": lambda g, _: g.update(sym={"as_expr": {"expr_str": "eval(chr(49))"}}),
    "a class": lambda _, whole: whole.update(in_spec=json.dumps([1, {"type": "collections.defaultdict"}])),
    "a text with a quotation mark": lambda _, whole: whole.update(anything='x")+print("'),
    "a key with a quotation mark": lambda _, whole: whole.update({'x")': 1}),
    "pickled weights": lambda _, whole: whole.update(config={"x": {"use_pickle": True}}),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_graphs_that_could_run_code(tmp_path, members, case):
    refused(tmp_path, edited(members, GRAPHS[case]), "that can be trusted: ")


def test_guards_are_dropped(tmp_path, members):
    parts = edited(members, lambda _, whole: whole.update(guards_code=["__import__('os').abort()"]))
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
    assert load_program(tmp_path / "model.pt2").module()(torch.rand(2, 3, 16, 16)).shape == (2, 4)


@pytest.mark.parametrize(
    "name", ["data/constants/opaque_obj_0", "data/constants/custom_obj_0", "data/aotinductor/model/m.so"]
)
def test_members_that_could_be_code(tmp_path, members, name):
    parts, graph = members
    refused(tmp_path, parts | {f"{graph.split('/')[0]}/data/{name}": pickle.dumps(Runs())}, "which may be code")


def test_pickled_example_inputs_run_nothing(tmp_path, members):
    parts, _ = members
    buffer = io.BytesIO()
    torch.save(Runs(), buffer)
    name = next(name for name in parts if name.endswith(".pt"))
    refused(tmp_path, parts | {name: buffer.getvalue()}, "not a program")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(tmp_path, members):
    parts, graph = members
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in [*parts.items(), (graph, b"{}")]:
            file.writestr(name, content)
    with pytest.raises(FmlibError, match="two parts"):
        load_program(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"text", b"\x80\x04N."])
def test_other_files(tmp_path, content):
    (tmp_path / "model.pt2").write_bytes(content)
    with pytest.raises(FmlibError, match="is not a program"):
        load_program(tmp_path / "model.pt2")


def test_a_program_cut_short(tmp_path):
    saved(tmp_path / "model.pt2", MODELS["convolutions"])
    content = (tmp_path / "model.pt2").read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "model.pt2").write_bytes(content[: int(share * len(content))])
        with pytest.raises(FmlibError, match="is not a program"):
            load_program(tmp_path / "model.pt2")


def test_parts_that_may_unpack_to_any_size(tmp_path, members):
    with zipfile.ZipFile(tmp_path / "model.pt2", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members[0].items():
            file.writestr(name, content)
    with pytest.raises(FmlibError, match="compressed"):
        load_program(tmp_path / "model.pt2")
