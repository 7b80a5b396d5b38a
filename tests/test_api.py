"""The names that `fmlib` exports: each has a documented example that works, and importing `fmlib` is cheap."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fmlib

PACKAGE = Path(fmlib.__file__).parent


def run_examples(docstring: str | None, name: str, namespace: dict[str, Any]) -> None:
    """Run the examples of a docstring in `namespace`; fail if it has none."""
    test = doctest.DocTestParser().get_doctest(docstring or "", {}, name, None, None)
    test.globs = namespace
    assert test.examples, f"the docstring of {name} has no example"
    report: list[str] = []
    failed, _ = doctest.DocTestRunner(verbose=False).run(test, out=report.append, clear_globs=False)
    assert not failed, "".join(report)


@pytest.fixture(scope="module")
def namespace() -> dict[str, Any]:
    """What the example of the package itself defines: the other examples continue it."""
    names: dict[str, Any] = {}
    run_examples(fmlib.__doc__, "fmlib", names)
    return names


@pytest.mark.parametrize("name", fmlib.__all__)
def test_every_exported_name_has_an_example(name):
    assert ">>> " in inspect.getdoc(getattr(fmlib, name))


def examples(folder: str) -> list[tuple[str, str]]:
    """The (module, name) of each public function, class and method below `fmlib.<folder>` that has an example."""
    found = []
    for path in sorted((PACKAGE / folder).glob("[a-z]*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                parts = [(node, node.name)]
                parts += [(part, f"{node.name}.{part.name}") for part in node.body if isinstance(part, ast.FunctionDef)]
                module = f"fmlib.{folder}.{path.stem}"
                found += [(module, name) for part, name in parts if ">>> " in (ast.get_docstring(part) or "")]
    return found


@pytest.mark.parametrize(("module", "name"), [pair for folder in ("core", "explain") for pair in examples(folder)])
def test_every_example_works(module, name, namespace):
    value = importlib.import_module(module)
    for part in name.split("."):
        value = getattr(value, part)
    run_examples(inspect.getdoc(value), f"{module}.{name}", dict(namespace))


def test_importing_the_package_does_not_import_torch():
    subprocess.run(
        [sys.executable, "-c", "import sys, fmlib; dir(fmlib); assert 'torch' not in sys.modules"], check=True
    )


def test_exported_names_are_those_that_type_checkers_see():
    tree = ast.parse(Path(fmlib.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module.startswith("fmlib.")]
    assert sorted(alias.asname for node in imports for alias in node.names) == sorted(fmlib.__all__)
    for node in imports:
        for alias in node.names:
            assert getattr(fmlib, alias.name).__module__ == node.module


def test_exported_names_are_listed_and_others_are_refused():
    assert set(fmlib.__all__) <= set(dir(fmlib))
    assert 20 <= len(fmlib.__all__) <= 30
    with pytest.raises(AttributeError, match="no attribute 'planet'"):
        fmlib.planet  # noqa: B018
