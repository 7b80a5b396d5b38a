"""What keeps the library small and readable: its shape, the length of its functions, and its words."""

import ast
import re
from pathlib import Path

import pytest

import fmlib
from fmlib.studies import registry

ROOT = Path(fmlib.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
TEXTS = sorted([*SOURCES, *ROOT.rglob("*.toml")])

#: Private words -> what papers print instead.
WORDS = {
    r"nought": "zero",
    r"specks?": "near-zero residue",
    r"likeness(es)?": "similarity",
    r"alike": "similar, similarity",
    r"plainly": "standard training",
    r"laborator(y|ies)": "setup, playground",
    r"recipes?": "experiment",
    r"journal": "log",
    r"guard(s|ed|ing)?": "clip",
    r"calm": "loss_tol",
    r"as (it|they) stands?": "unmasked",
    r"behind (its|their|the|a|an|one) ((own|dataset|image) )?masks?": "with its mask applied, filtered",
    r"withstands?|withstood|withstanding": "robust accuracy",
    r"envelopes?": "pooled_range",
    r"scattered": "random",
    r"crossed": "class_transfer",
    r"exchanged": "image_transfer",
    r"made by": "source",
    r"told": "recorded, annotated",
    r"mistakes?": "error",
    r"planted": "synthetic",
    r"classif(y|ied|ies) rightly|wrongly|rightly": "correctly, incorrectly",
    r"tells? (the class|apart)": "predicts the class, distinguishes",
    r"give or take": "plus or minus",
    r"seeded": "global_rng",
}
#: Stored names: purposes that seed random draws, kinds and keys in hashes, ids and sources in published files.
STORED = [
    r'"scattered"',
    r'"maps_(crossed|exchanged)"',
    r'"key": "(still|calm|keep|memory|guard|least)"',
    r'"planted[ \w{}]*"',
    r'"(guarded|(F5\.)?likeness|behind)"',
    r'"P\.planted[.\w]*"',
    r'"B\.(exchanged|crossed)[.\w]*"',
    r'"([\w.]+#)?figure-(planted|crossed|exchanged)"',
    r'"guards_code"',
]


def test_the_package_has_three_files_beside_its_folders():
    assert len(list(ROOT.glob("*.py"))) <= 3


def test_the_core_is_small():
    assert sum(len(path.read_text().splitlines()) for path in (ROOT / "core").rglob("*.py")) <= 3000


def test_no_folder_but_the_core_has_many_modules():
    folders = {path.parent for path in SOURCES} - {ROOT / "core"}
    sizes = {folder: len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) for folder in folders}
    assert {str(folder): size for folder, size in sizes.items() if size > 9} == {}


def test_modules_are_named_by_what_they_hold():
    assert [path for path in SOURCES if path.stem in ("utils", "util", "helpers", "misc", "common", "tools")] == []


def test_every_study_is_in_the_registry():
    folders = {path.name for path in (ROOT / "studies").iterdir() if list(path.glob("*.py"))}
    assert folders == {*registry.STUDIES, "shared"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short(path):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    lengths = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, functions)
    }
    assert {name: length for name, length in lengths.items() if length > 60} == {}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_and_public_function_is_described(path):
    tree = ast.parse(path.read_text())
    if not tree.body:
        return  # a package without code
    described = [tree]
    described += [
        node
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    ]
    texts = {getattr(node, "name", "module"): ast.get_docstring(node) or "" for node in described}
    assert [name for name, text in texts.items() if not text or text == "TODO"] == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_words_are_those_of_the_field(path):
    """Names as well as sentences: `planted_tones` holds the word "planted"."""
    remaining = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for stored in STORED:
            line = re.sub(stored, '""', line)
        for word, instead in WORDS.items():
            found = re.search(rf"(?<![a-zA-Z])({word})(?![a-zA-Z])", line, re.IGNORECASE)
            if found:
                remaining.append(f"{path.name}:{number}: {found[0]!r}, not {instead}")
    assert remaining == []
