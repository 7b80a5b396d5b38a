"""What the project is made of: installed versions against ci/constraints.txt, licences, and a bill of materials.

python ci/supply_chain.py check           # exit code 1 and a line for each installed version that is not the pinned one
python ci/supply_chain.py bill FILE       # a CycloneDX bill of materials, JSON
python ci/supply_chain.py licences        # writes book/licences.md
python ci/supply_chain.py lock INDEX      # pins what is installed in ci/constraints.txt, with the hashes of its files;
                                          # INDEX is the address of a package index with the JSON simple API
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import urllib.request
from importlib import metadata
from pathlib import Path

from packaging.utils import canonicalize_name

import fmlib
from fmlib.pipeline.disk.files import write_bytes

ROOT = Path(__file__).parents[1]

HEAD = """# Licences

The packages that `make` installs, with the versions of `ci/constraints.txt` and the licences that they declare. The
project itself is under the MIT licence, its text and figures under CC BY 4.0. `make bill` writes the same list to
`_build/bill.json`, a bill of materials in the CycloneDX format; `python ci/supply_chain.py licences` writes this page.

| package | version | licence |
|---|---|---|
"""

LOCK = """# Exact versions, and hashes of their files, for `make` and CI; pyproject.toml has lower bounds for others.
# `python ci/supply_chain.py lock INDEX` writes this file.
"""

#: Installed on Linux alone.
LINUX = re.compile(r"triton|(nvidia|cuda)-.*")

#: Files that some machine installs: sources, and wheels for the Python versions that the project supports.
FILES = re.compile(r".*(\.tar\.gz|\.zip|-(py2\.)?py3-none-[\w.]+\.whl|-cp31[1-4]-\S+\.whl|-cp3\d+-abi3-\S+\.whl)")

#: What an environment begins with.
TOOLS = ("pip",)


def pinned(path: Path = ROOT / "ci" / "constraints.txt") -> dict[str, str]:
    """Canonical name of each pinned package -> its version."""
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", path.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def lock(packages: dict[str, metadata.Distribution], index: str) -> str:
    """The lock file of these packages: a name, a version and the SHA-256 of every file of it that may be installed."""
    lines = []
    for name, one in packages.items():
        wanted = {"Accept": "application/vnd.pypi.simple.v1+json"}
        address = f"{index.rstrip('/')}/{name}/"
        try:
            request = urllib.request.Request(address, headers=wanted)
            with urllib.request.urlopen(request, timeout=60) as answer:
                files = json.load(answer)["files"]
        except (OSError, ValueError, KeyError) as error:
            raise SystemExit(f"{address} is no page of a package index with the JSON API: {error}") from error
        start = re.compile(
            rf"{re.sub('[-_.]+', '[-_.]+', name)}-{re.escape(one.version)}(-|\.tar|\.zip)", re.IGNORECASE
        )
        chosen = [file for file in files if start.match(file["filename"]) and FILES.fullmatch(file["filename"])]
        hashes = sorted({f"    --hash=sha256:{file['hashes']['sha256']}" for file in chosen})
        if not hashes:
            raise SystemExit(f"the index has no file of {name} {one.version}")
        where = ' ; platform_system == "Linux"' if LINUX.fullmatch(name) else ""
        lines.append(" \\\n".join([f"{name}=={one.version}{where}", *hashes]))
    return LOCK + "\n".join(lines) + "\n"


def installed() -> dict[str, metadata.Distribution]:
    """Canonical name of each installed package but this project -> its distribution."""
    found = {canonicalize_name(one.metadata["Name"]): one for one in metadata.distributions()}
    found.pop("fmlib", None)
    return dict(sorted(found.items()))


def differences(pins: dict[str, str], versions: dict[str, str]) -> list[str]:
    """A line for each installed package that is not pinned, or of another version than the pinned one.

    Not listed are the tools of every environment.
    """
    return [
        f"{name} {version} is installed, {pins.get(name, 'nothing')} is pinned"
        for name, version in versions.items()
        if pins.get(name) != version and name not in TOOLS
    ]


def licence(one: metadata.Distribution) -> str:
    """The licence that a package declares: its expression, or its classifiers, or the first line of its text."""
    if expression := one.metadata.get("License-Expression"):
        return expression
    classifiers = [line for line in one.metadata.get_all("Classifier") or [] if line.startswith("License :: ")]
    named = [line.rpartition(" :: ")[2] for line in classifiers if line.count("::") > 1]
    text = (one.metadata.get("License") or "").strip().partition("\n")[0]
    return ", ".join(named) or text.replace("UNKNOWN", "") or "not declared"


def page(packages: dict[str, metadata.Distribution]) -> str:
    """The page of licences, as Markdown; pinned packages that are not installed here are left out."""
    rows = [f"| {name} | {one.version} | {re.sub('[|<]', ' ', licence(one))} |" for name, one in packages.items()]
    return HEAD + "\n".join(rows) + "\n"


def bill(packages: dict[str, metadata.Distribution]) -> dict[str, object]:
    """A bill of materials in the CycloneDX format, version 1.5."""
    components = [
        {
            "type": "library",
            "name": name,
            "version": one.version,
            "purl": f"pkg:pypi/{name}@{one.version}",
            "licenses": [{"license": {"name": licence(one)}}],
        }
        for name, one in packages.items()
    ]
    about = {"type": "library", "name": "fmlib", "version": fmlib.__version__}
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "metadata": {"component": about}, "components": components}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Versions, licences and a bill of materials.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="compare installed versions with ci/constraints.txt")
    commands.add_parser("licences", help="write book/licences.md")
    commands.add_parser("bill", help="write a bill of materials").add_argument("file", type=Path)
    commands.add_parser("lock", help="write ci/constraints.txt").add_argument("index")
    words = parser.parse_args()
    packages, pins = installed(), pinned()
    if words.command == "check":
        found = differences(pins, {name: one.version for name, one in packages.items()})
        sys.exit("\n".join(found) if found else None)
    if words.command == "lock":
        chosen = {name: one for name, one in packages.items() if name not in TOOLS}
        write_bytes(ROOT / "ci" / "constraints.txt", lock(chosen, words.index).encode())
        return
    listed = {name: one for name, one in packages.items() if name in pins}
    if words.command == "licences":
        write_bytes(ROOT / "book" / "licences.md", page(listed).encode())
    else:
        write_bytes(words.file, (json.dumps(bill(listed), indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
