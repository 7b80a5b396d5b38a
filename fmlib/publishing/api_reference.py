"""The book's reference of the library: signatures and docstrings, read from the source."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

#: The modules that someone with a network of their own would call, from the ground up.
MODULES = (
    "config", "spectra", "runtime", "drawing", "controls", "intervals", "results", "store", "attacks", "jacobian",
    "models", "data", "frequency_maps", "separability", "similarity", "harmonics", "masks", "heatmaps", "corruptions",
    "training", "lab", "experiment", "experiments", "chapters",
)  # fmt: skip

HEAD = """# Reference of the library

What can be called from code of your own, module by module, from the ground up. Left out are private names, the
functions that draw the figures, the claims, and what only the commands need. `fmlib book --publish` makes this page
from the docstrings.
"""

Public = ast.FunctionDef | ast.ClassDef


def public(nodes: list[ast.stmt]) -> list[Public]:
    """The functions and classes among `nodes` whose names do not begin with an underscore."""
    return [node for node in nodes if isinstance(node, Public) and not node.name.startswith("_")]


def source(module: str) -> str:
    """The source of `fmlib.<module>`."""
    return Path(__file__).with_name(f"{module}.py").read_text()


def page() -> str:
    """The page as MyST: a section a module, with its docstring, and an entry for each public name."""
    parts = [HEAD]
    for module in MODULES:
        text = source(module)
        tree = ast.parse(text)
        parts.append(f"## fmlib.{module}\n\n{_prose(tree)}")
        for node in public(tree.body):
            parts.append(f"### {node.name}\n\n{_entry(node, text.splitlines())}")
            for method in public(node.body) if isinstance(node, ast.ClassDef) else []:
                parts.append(f"#### {node.name}.{method.name}\n\n{_entry(method, text.splitlines())}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _entry(node: Public, lines: list[str]) -> str:
    """What stands above the docstring in the source, below it a class's public fields; then the docstring."""
    first = min(one.lineno for one in (node, *node.decorator_list))
    shown = lines[first - 1 : node.body[0].lineno - 1]
    for field in node.body if isinstance(node, ast.ClassDef) else []:
        if isinstance(field, ast.AnnAssign) and not ast.unparse(field.target).startswith("_"):
            shown += lines[field.lineno - 1 : field.end_lineno]
    code = textwrap.dedent("\n".join(shown)).removesuffix(":")
    return f"```python\n{code}\n```\n\n{_prose(node)}"


def _prose(node: ast.Module | Public) -> str:
    """A docstring as MyST: in its paragraphs only `code` and **bold** mean anything; indented ones stay as they are."""
    paragraphs = []
    for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
        if all(line.startswith("    ") for line in paragraph.splitlines()):
            paragraphs.append(f"```text\n{textwrap.dedent(paragraph)}\n```")
        else:
            pieces = re.split(r"(`[^`]+`|\*\*[^*]+\*\*)", paragraph)
            pieces[::2] = [re.sub(r"[*<$\\\[]|(?<=\w)\.(?=[a-z])", r"\\\g<0>", piece) for piece in pieces[::2]]
            paragraphs.append("".join(pieces))
    return "\n\n".join(paragraphs)
