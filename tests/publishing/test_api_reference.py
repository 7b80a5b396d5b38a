"""The reference: the committed page is today's, names everything public, and everything public says what it does."""

import ast
import importlib
import inspect
import tomllib

import pytest

from fmlib.publishing import api_reference, build


def test_the_committed_page_is_up_to_date():
    assert (build.BOOK / "reference.md").read_text() == api_reference.page(), "run 'fmlib book --publish'"


@pytest.mark.parametrize("module", api_reference.MODULES)
def test_every_public_name_has_an_entry_and_a_docstring(module):
    section = api_reference.page().split(f"\n## fmlib.{module}\n")[1].split("\n## ")[0].replace("\\", "")
    loaded = importlib.import_module(f"fmlib.{module}")
    for name, value in vars(loaded).items():
        if inspect.getmodule(value) is loaded and not name.startswith("_"):
            if not (inspect.isfunction(value) or inspect.isclass(value)):
                continue
            assert f"\n### {name}\n" in section
            assert value.__doc__
            first = inspect.getdoc(value).splitlines()[0]
            assert first.split("`")[0].split("*")[0][:30] in section


@pytest.mark.parametrize("module", api_reference.MODULES)
def test_every_public_method_has_a_docstring(module):
    for node in api_reference.public(ast.parse(api_reference.source(module)).body):
        for method in api_reference.public(node.body) if isinstance(node, ast.ClassDef) else []:
            assert ast.get_docstring(method), f"{module}.{node.name}.{method.name}"


def test_modules_stand_in_the_order_of_the_layers():
    (contract,) = tomllib.loads((build.ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layer = {
        name.strip().removeprefix("fmlib."): height
        for height, names in enumerate(reversed(contract["layers"]))
        for name in names.split("|")
    }
    heights = [layer[module] for module in api_reference.MODULES]
    assert heights == sorted(heights)


def test_text_is_escaped_and_equations_are_kept():
    tree = ast.parse('"""Of <b> and 2 * 3, see data.py and `a * b`.\n\n        x = 1\n\n    End.\n    """')
    assert (
        api_reference._prose(tree) == "Of \\<b> and 2 \\* 3, see data\\.py and `a * b`.\n\n```text\nx = 1\n```\n\nEnd."
    )
