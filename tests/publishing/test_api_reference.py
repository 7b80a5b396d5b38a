"""The reference: the committed page is up to date, names everything public, and everything public has a docstring."""

import ast
import importlib
import inspect

import pytest

import fmlib
from fmlib.publishing import api_reference, build

PAGES = api_reference.pages()


def test_the_committed_pages_are_up_to_date():
    committed = [build.BOOK / "reference.md", *(build.BOOK / "reference").iterdir()]
    assert {str(path.relative_to(build.BOOK)): path.read_text() for path in committed} == PAGES, (
        "run 'fmlib book publish'"
    )


@pytest.mark.parametrize("module", api_reference.MODULES)
def test_every_public_name_has_an_entry_and_a_docstring(module):
    page = PAGES[f"reference/{module}.md"].replace("\\", "")
    loaded = importlib.import_module(f"fmlib.{module}")
    for name, value in vars(loaded).items():
        if inspect.getmodule(value) is loaded and not name.startswith("_"):
            if not (inspect.isfunction(value) or inspect.isclass(value)):
                continue
            assert f"\n## {name}\n" in page
            assert value.__doc__
            first = inspect.getdoc(value).splitlines()[0]
            assert first.split("`")[0].split("*")[0][:30] in page


@pytest.mark.parametrize("module", api_reference.MODULES)
def test_every_public_method_has_a_docstring(module):
    for node in api_reference.public(ast.parse(api_reference.source(module)).body):
        for method in api_reference.public(node.body) if isinstance(node, ast.ClassDef) else []:
            assert ast.get_docstring(method), f"{module}.{node.name}.{method.name}"


@pytest.mark.parametrize("name", fmlib.__all__)
def test_every_exported_name_leads_to_its_entry(name):
    module = getattr(fmlib, name).__module__.removeprefix("fmlib.")
    assert f"\n| `{name}` | [fmlib.{module}](reference/{module}.md) |\n" in PAGES["reference.md"]
    assert f"\n## {name}\n" in PAGES[f"reference/{module}.md"]


def test_every_module_of_the_library_has_a_page():
    folder = build.ROOT / "fmlib" / "core"
    modules = {f"core.{path.stem}" for path in folder.glob("*.py") if not path.stem.startswith("_")}
    assert modules <= set(api_reference.MODULES)


def test_text_is_escaped_and_equations_are_kept():
    tree = ast.parse('"""Of <b> and 2 * 3, see data.py and `a * b`.\n\n        x = 1\n\n    End.\n    """')
    assert (
        api_reference._prose(tree) == "Of \\<b> and 2 \\* 3, see data\\.py and `a * b`.\n\n```text\nx = 1\n```\n\nEnd."
    )


def test_sections_of_a_docstring_are_lists_and_examples_are_code():
    tree = ast.parse(
        '"""Sum.\n\n    Args:\n        first: a number,\n            or two.\n        second: 1 * 2.\n\n'
        '    Returns:\n        The sum\n        of both.\n\n    Example:\n        >>> f(1)\n    """'
    )
    assert api_reference._prose(tree) == (
        "Sum.\n\n**Args**\n\n- first: a number, or two.\n- second: 1 \\* 2.\n\n**Returns**\n\n- The sum of both.\n\n"
        "**Example**\n\n```python\n>>> f(1)\n```"
    )
