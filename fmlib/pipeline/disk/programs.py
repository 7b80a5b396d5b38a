"""Exported programs from others: what `torch.export.save` wrote, read without running anything that the file says.

`torch.export.load` trusts its file: it may unpickle objects, evaluate expressions, load compiled libraries and call any
function that a node of the graph names. Here the file is first copied into memory without what is not needed (stack
traces, checks of the inputs), and the copy is refused unless it holds only tensors and calls of known operators.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from fmlib.core.errors import FmlibError, require

#: Names in the archive, below its first folder or (in torch before 2.8) at the top.
MEMBERS = re.compile(
    r"([^/]+/)?(archive_format|archive_version|byteorder|version|\.data/\w+|\.format_version|\.storage_alignment"
    r"|models/\w+\.json|data/weights/weight_\d+|data/constants/tensor_\d+|data/(weights|constants)/\w+_config\.json"
    r"|data/sample_inputs/\w+\.pt|extra/.*|extra_files/.*|serialized_\w+\.(json|pt))"
)
#: Functions that a node of the graph may call. Files are read and written by a few operators.
TARGETS = re.compile(
    r"torch\.ops\.(aten|prims|torchvision)\.(?!from_file|save|_print|__(?!i?(and|or|xor|lshift|rshift)__))\w+\.(?!_)\w+"
    r"|torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
    r"|math\.(ceil|floor|trunc|sqrt|pow)|torch\.(_?sym_\w+|_check\w*)"
)
#: The words of a size that depends on the batch.
EXPRESSION = re.compile(
    r"([\d\s.+\-*/%(),<>=&|]|'\w+'|\b[su]\d+\b|\b(Symbol|Integer|Float|Rational|Add|Mul|Pow|Abs|floor|ceiling|Max|Min"
    r"|Mod|PythonMod|FloorDiv|CeilDiv|CleanDiv|ModularIndexing|IntTrueDiv|FloatTrueDiv|TruncToInt|ToFloat"
    r"|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|oo|int_oo|integer|positive|nonnegative|True|False)\b)*"
)
TEXT = re.compile(r"[\w.+\-:/ ]*")
#: Containers of a program's inputs and outputs.
CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}

#: Parts of the graph that are left out, with what takes their place.
UNNEEDED: dict[str, Any] = {"metadata": {}, "guards_code": []}


def load_program(path: Path) -> torch.export.ExportedProgram:
    """The program in a file.

    Raises:
        FmlibError: there is no such file, it is damaged, or it holds more than tensors and calls of known operators.
    """
    require(path.is_file(), f"there is no file {path}")
    try:
        return torch.export.load(_checked(path.read_bytes()))
    except FmlibError as error:
        raise FmlibError(f"{path} is not a program of torch.export.save that can be trusted: {error}") from error
    except Exception as error:  # torch's own types vary by its version
        raise FmlibError(f"{path} is not a program of torch.export.save: {type(error).__name__}") from error


def _checked(content: bytes) -> io.BytesIO:
    """A copy of an archive, whose members are all known and harmless."""
    copy = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(copy, "w") as new:
        names = old.namelist()
        if len(set(names)) < len(names):
            raise FmlibError("two parts of it have one name")
        if any(part.compress_type != zipfile.ZIP_STORED for part in old.infolist()):
            raise FmlibError("its parts are compressed, and may unpack to any size")
        for name in names:
            if not MEMBERS.fullmatch(name):
                raise FmlibError(f"it holds {name[:80]!r}, which may be code")
            part = old.read(name)
            if name.endswith(".json"):
                part = json.dumps(_harmless(json.loads(part))).encode()
            elif name.endswith(".pt"):
                torch.load(io.BytesIO(part), weights_only=True)
            new.writestr(name, part)
    copy.seek(0)
    return copy


def _harmless(value: Any, key: str = "") -> Any:
    """A part of the graph without stack traces; raises `FmlibError` for anything that could run code."""
    if isinstance(value, dict):
        if value.get("use_pickle"):
            raise FmlibError("its weights are pickled, which may be code")
        for name in value:
            _require(TEXT, name, "name")
        return {name: UNNEEDED[name] if name in UNNEEDED else _harmless(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_harmless(item, key) for item in value]
    if isinstance(value, str):
        if key in ("in_spec", "out_spec"):
            _require_containers(json.loads(value or "null"))
        elif key in ("target", "as_operator"):
            _require(TARGETS, value, "function")
        elif key == "expr_str":
            _require(EXPRESSION, value, "expression")
        elif key in ("name", "as_name"):
            _require(re.compile(r"\w*"), value, "name")
        else:
            _require(TEXT, value, "text")
    return value


def _require_containers(spec: Any) -> None:
    """Raise `FmlibError` if the inputs or outputs are objects of a class that the file names."""
    if isinstance(spec, dict):
        if "type" in spec and spec["type"] not in CONTAINERS:
            raise FmlibError(f"its inputs or outputs are of the type {str(spec['type'])[:80]!r}")
        spec = list(spec.values())
    for item in spec if isinstance(spec, list) else []:
        _require_containers(item)


def _require(pattern: re.Pattern[str], value: str, what: str) -> None:
    if not pattern.fullmatch(value):
        raise FmlibError(f"it holds the {what} {value[:80]!r}, which is not known to be harmless")
