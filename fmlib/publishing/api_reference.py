"""The book's reference of the library: signatures and docstrings, read from the source."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import fmlib

#: The modules on the page, below `fmlib`: the library first, then how results are computed, published and shown.
MODULES = (
    "explain.fourier_mask", "explain.classifier", "explain.explanation", "explain.loading", "explain.report",
    "explain.shared_mask",
    "explain.card",
    "core.config", "core.errors", "core.checks", "core.device", "core.data", "core.synthetic", "core.models",
    "core.augment", "core.training", "core.evaluation", "core.attacks", "core.spectra", "core.masks",
    "core.minimal_masks", "core.frequency_maps", "core.mask_optimizer", "core.controls",
    "core.jacobian", "core.heat_maps", "core.intervals",
    "pipeline.store", "pipeline.disk.files", "pipeline.disk.locks", "pipeline.disk.upkeep",
    "pipeline.disk.programs",
    "pipeline.experiment", "pipeline.results", "pipeline.claims", "pipeline.launchers.ray",
    "studies.shared.profiles", "studies.shared.setup", "studies.registry", "studies.harmonic_distortion.harmonics",
    "studies.class_separability.separability", "studies.frequency_maps.similarity",
    "studies.jacobian_regularisation.corruptions", "studies.freqbench.measure", "studies.freqbench.scores",
    "publishing.notebook", "publishing.playground.graph", "publishing.playground.page",
)  # fmt: skip

#: The headings of a docstring's sections, whose entries are shown as lists.
SECTIONS = ("Args:", "Attributes:", "Returns:", "Raises:")

HEAD = """# Reference of the library

The functions and classes that you can call from your own code, one page per module. The functions that measure
claims, draw figures or run commands are left out. `fmlib book publish` writes these pages from the docstrings.
"""

Public = ast.FunctionDef | ast.ClassDef


def public(nodes: list[ast.stmt]) -> list[Public]:
    """The functions and classes among `nodes` whose names do not begin with an underscore."""
    return [node for node in nodes if isinstance(node, Public) and not node.name.startswith("_")]


def source(module: str) -> str:
    """The source of `fmlib.<module>`."""
    return Path(__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py").read_text()


def pages() -> dict[str, str]:
    """The pages as MyST, by their paths in the book: one of `fmlib` and its modules, and one for each module."""
    trees = {module: ast.parse(source(module)) for module in MODULES}
    index = "\n\n".join(part.strip() for part in (HEAD, _exported(), _modules(trees)))
    return {"reference.md": f"{index}\n"} | {_path(module): _page(module, tree) for module, tree in trees.items()}


def _path(module: str) -> str:
    """The path of a module's page in the book."""
    return f"reference/{module}.md"


def _page(module: str, tree: ast.Module) -> str:
    """The page of a module: its docstring, then an entry for each public name."""
    lines = source(module).splitlines()
    parts = [f"# fmlib.{module}", _prose(tree)]
    for node in public(tree.body):
        parts.append(f"## {node.name}\n\n{_entry(node, lines)}")
        for method in public(node.body) if isinstance(node, ast.ClassDef) else []:
            parts.append(f"### {node.name}.{method.name}\n\n{_entry(method, lines)}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _exported() -> str:
    """The docstring of `fmlib`, and the names that it exports, each with a link to its module."""
    places = {name: getattr(fmlib, name).__module__.removeprefix("fmlib.") for name in fmlib.__all__}
    rows = "\n".join(f"| `{name}` | [fmlib.{place}]({_path(place)}) |" for name, place in places.items())
    docstring = _prose(ast.parse(Path(str(fmlib.__file__)).read_text()))
    return f"## fmlib\n\n{docstring}\n\n| name | module |\n|---|---|\n{rows}"


def _modules(trees: dict[str, ast.Module]) -> str:
    """The table of modules: a link to each, and the first line of its docstring."""
    heads = {module: (ast.get_docstring(tree) or "").partition("\n")[0] for module, tree in trees.items()}
    rows = "\n".join(f"| [fmlib.{module}]({_path(module)}) | {_escaped(head)} |" for module, head in heads.items())
    return f"## Modules\n\n| module | what it holds |\n|---|---|\n{rows}"


def _entry(node: Public, lines: list[str]) -> str:
    """The signature of a function, or the head and public fields of a class; then the docstring."""
    first = min(part.lineno for part in (node, *node.decorator_list))
    shown = lines[first - 1 : node.body[0].lineno - 1]
    for field in node.body if isinstance(node, ast.ClassDef) else []:
        if isinstance(field, ast.AnnAssign) and not ast.unparse(field.target).startswith("_"):
            shown += lines[field.lineno - 1 : field.end_lineno]
    code = textwrap.dedent("\n".join(shown)).removesuffix(":")
    return f"```python\n{code}\n```\n\n{_prose(node)}"


def _prose(node: ast.Module | Public) -> str:
    """A docstring as MyST: its paragraphs as text, its sections as lists, its indented blocks as they are."""
    parts = []
    for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
        head, *rest = paragraph.splitlines() or [""]
        if head in SECTIONS:
            parts.append(f"**{head.removesuffix(':')}**\n\n{_items(rest)}")
        elif head == "Example:":
            code = textwrap.dedent("\n".join(rest))
            parts.append(f"**Example**\n\n```python\n{code}\n```")
        elif all(line.startswith("    ") for line in paragraph.splitlines()):
            parts.append(f"```text\n{textwrap.dedent(paragraph)}\n```")
        else:
            parts.append(_escaped(paragraph))
    return "\n\n".join(parts)


def _items(lines: list[str]) -> str:
    """The entries of a section as a list; a line that is indented deeper or names nothing continues the entry above."""
    items: list[str] = []
    for line in textwrap.dedent("\n".join(lines)).splitlines():
        if items and not re.match(r"[\w*`][\w*`., ]*: ", line):
            items[-1] += f" {line.strip()}"
        else:
            items.append(line)
    return "\n".join(f"- {_escaped(item)}" for item in items)


def _escaped(text: str) -> str:
    """Text in which only `code` and **bold** are markup."""
    pieces = re.split(r"(`[^`]+`|\*\*[^*]+\*\*)", text)
    pieces[::2] = [re.sub(r"[*<$\\\[]|(?<=\w)\.(?=[a-z])", r"\\\g<0>", piece) for piece in pieces[::2]]
    return "".join(pieces)
