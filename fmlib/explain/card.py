"""A report as files: a page for people, masks, a table and the numbers; and several reports side by side.

The pages need neither scripts nor a network: styles, pictures and charts are inside them.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from fmlib.core.errors import FmlibError, require
from fmlib.core.intervals import Measured
from fmlib.explain.charts import Line, curves, intervals, plane
from fmlib.explain.loading import name_of
from fmlib.explain.report import Report, full_masks, nyquist
from fmlib.pipeline.plotting import centred
from fmlib.pipeline.progress import duration
from fmlib.pipeline.store import write_bytes

PAGE, MASKS, TABLE, NUMBERS = "card.html", "masks.safetensors", "table.csv", "report.json"
#: What `NUMBERS` says of itself.
FORMAT = "fmlib report 1"
#: Images that the page shows.
EXAMPLES = 6
#: Reports that can be compared at once.
MOST = 12
#: The title of the page that compares them.
COMPARISON = "Fourier masks of several models"

#: The rows at the head of the page, and what each says in short.
TILES = {
    "Frequencies in the image masks": "of the frequencies are in the mask of an image",
    "Predictions kept by the mask's frequencies at full strength": "of the predictions are kept by these alone",
    "Predictions kept by the complement": "of the predictions are kept without them",
    "Predictions kept under PGD": "of the predictions are kept under a small attack",
}

ACROSS, RING, SECTOR = "radius, as a fraction of the largest frequency", "energy of a ring", "energy of a sector"
#: The charts: title, curves with their names, labels of the axes, and how they are read.
CHARTS: tuple[tuple[str, dict[str, str], str, str, str], ...] = (
    (
        "Radius of the masks",
        {"mask radial": "image masks", "dataset radial": "one mask for all", "images radial": "the images themselves"},
        ACROSS,
        RING,
        "Where the masks exceed the images, the model uses more than its share of what is there.",
    ),
    (
        "Radius of gradients and attacks",
        {"Jacobian radial": "input gradients", "attack radial": "PGD perturbation", "images radial": "the images"},
        ACROSS,
        RING,
        "Where a small change of the input changes the loss most.",
    ),
    (
        "Noise of one frequency",
        {"heat radial": "predictions changed"},
        ACROSS,
        "share changed",
        "Peaks are frequencies at which a little noise changes many predictions.",
    ),
    (
        "Direction of the masks",
        {"mask angular": "image masks", "dataset angular": "one mask for all"},
        "direction, degrees from the horizontal",
        SECTOR,
        "Peaks at 0, 90, 180 and 270 degrees are horizontal and vertical frequencies, as of edges and borders.",
    ),
)


def require_free(folder: Path) -> None:
    """Raise `FmlibError` unless a report may be written to `folder`: it is absent, empty, or holds a report."""
    if folder.is_dir() and not (folder / NUMBERS).exists():
        require(not any(folder.iterdir()), f"{folder} holds other files than a report: choose another folder for --out")
    elif folder.is_dir():
        read(folder)
    else:
        require(not folder.exists(), f"{folder} is a file: choose a folder for --out")


def write(report: Report, folder: Path, *, model: str, files: Sequence[str], names: Sequence[str] | None) -> Path:
    """Write a report's page, masks, table and numbers to a folder, in place of a former report.

    Args:
        report: what was measured.
        folder: it is made if it does not exist.
        model: its name.
        files: the name of each image.
        names: of the classes.

    Returns:
        The path of the page.

    Raises:
        FmlibError: the folder holds other files, or cannot be written.
    """
    require_free(folder)
    numbers = {"format": FORMAT, "model": model} | report.as_dict()
    try:
        write_bytes(folder / NUMBERS, (json.dumps(numbers, indent=1) + "\n").encode())
        report.images.save(folder / f"{MASKS}.writing")
        os.replace(folder / f"{MASKS}.writing", folder / MASKS)
        write_bytes(folder / TABLE, table(report, files, names).encode())
        write_bytes(folder / PAGE, card(report, model, files, names).encode())
    except OSError as error:
        raise FmlibError(f"cannot write to {folder}: {error.strerror or error}") from error
    return folder / PAGE


def read(folder: Path) -> dict[str, Any]:
    """The numbers of a report, from its folder or one of its files.

    Raises:
        FmlibError: there is no report, or it is damaged.
    """
    path = (folder if folder.is_dir() else folder.parent) / NUMBERS
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
        require(numbers["format"] == FORMAT, f"{path} is of another version of fmlib: write the report again")
        for row in numbers["rows"]:
            Measured(**row["value"])
    except FileNotFoundError as error:
        raise FmlibError(f"there is no report in {path.parent}: write one with 'fmlib explain'") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FmlibError(f"{path} is not a report of fmlib, or damaged: write the report again") from error
    return numbers


def table(report: Report, files: Sequence[str], names: Sequence[str] | None) -> str:
    """One row per image as CSV: its mask's size, and whether the model keeps the label."""
    found = report.images
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(["file", "label", "name", "share", "nonzero_share", "kept", "complement_kept", "converged"])
    for row, file in enumerate(files):
        label = int(found.labels[row])
        shares = [f"{float(values[row]):.6g}" for values in (found.share, found.nonzero_share)]
        flags = [bool(values[row]) for values in (found.kept, found.kept_complement, found.masks.converged)]
        writer.writerow([file, label, name_of(names, label), *shares, *flags])
    return rows.getvalue()


# ------------------------------------------------------------------------------------------------------- the card


def card(report: Report, model: str, files: Sequence[str], names: Sequence[str] | None) -> str:
    """The page of one report, as HTML."""
    found = report.images
    count, size = len(found.images), "{} x {}".format(*found.images.shape[-2:])
    missed = int((~found.masks.converged).sum())
    shown = f"the first {EXAMPLES} of {count}" if count > EXAMPLES else f"all {count}"
    note = f"{missed} of {count} masks did not converge: they lose the label or change the loss. Increase the steps."
    body = [
        f'<header><p class="over">Fourier masks of a classifier</p><h1>{escape(model)}</h1>'
        f'<p class="muted">{count} images of {size} pixels, {len(found.labels.unique())} predicted classes. Labels are '
        "the model's own predictions; intervals are 95% intervals over the images.</p></header><main>",
        f'<p class="note">{note}</p>' if missed else "",
        f'<section aria-label="In short" class="tiles">{_tiles(report)}</section>',
        "<h2>Images and their masks</h2><p>A mask multiplies the Fourier transform of its image. The zero frequency is "
        "in the middle, and bright frequencies are kept. The third picture has only these frequencies, the fourth all "
        f"others. These are {shown} images.</p>",
        *(_example(report, row, str(files[row]), names) for row in range(min(count, EXAMPLES))),
        _shared(report),
        "<h2>Numbers</h2><p>Each value has a control beside it: what is expected if nothing is special about the "
        "frequencies of the masks, the gradients or the attack.</p>",
        _numbers(report),
        f'<h2>Curves</h2><p>Bands are 95% intervals over the images.</p><div class="charts">{_charts(report)}</div>',
        f"<h2>About this report</h2>{_about(report, model)}</main>",
    ]
    return document(f"Fourier masks of {model}", "".join(body))


def document(title: str, body: str) -> str:
    """A whole page with the style of cards; its policy lets it load nothing from elsewhere."""
    style = Path(__file__).with_name("card.css").read_text(encoding="utf-8")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def number(value: float) -> str:
    """A percentage with one decimal, or two significant digits below 1."""
    return f"{value:.1f}" if abs(value) >= 1 or value == 0 else f"{value:.2g}"


def interval(value: Measured) -> str:
    """The interval of a value in brackets, or nothing if it has none."""
    return f" ({number(value.low)} to {number(value.high)})" if value.low < value.high else ""


def _tiles(report: Report) -> str:
    """The headline numbers."""
    parts = []
    for row in report.rows:
        words = next((words for name, words in TILES.items() if row.name.startswith(name)), None)
        if words is not None:
            control = f"<br>{number(row.control.value)}% with {escape(row.against)}" if row.control else ""
            parts.append(
                f'<div class="tile"><strong>{number(row.value.value)}%</strong>{escape(words)}'
                f"<small>95% interval{interval(row.value)}, n&nbsp;=&nbsp;{row.value.n} images{control}</small></div>"
            )
    return "".join(parts)


def _example(report: Report, row: int, file: str, names: Sequence[str] | None) -> str:
    """An image, its mask, the filtered image and the complement."""
    found = report.images
    label = name_of(names, int(found.labels[row]))
    share = f"{number(100 * float(found.nonzero_share[found.index[row]]))}% of the frequencies"
    one = found.masks.full()[found.index[row]].float()
    mask = centred((one if one.ndim == 2 else one.mean(0)).cpu().numpy())
    kept, left = ("kept" if flag[row] else "lost" for flag in (found.kept, found.kept_complement))
    pictures = (
        (png(found.images[row]), f"The image {file}", "image"),
        (png(colormaps["magma"](mask**0.5)[..., :3]), f"Its mask: {share}, zero frequency in the middle", share),
        (png(found.filtered[row]), f"The image with its mask applied: {label} {kept}", f"mask applied: label {kept}"),
        (
            png(found.complement[row]),
            f"The image without the mask's frequencies: {label} {left}",
            f"complement: {left}",
        ),
    )
    shown = "".join(_figure(*picture) for picture in pictures)
    heading = f'<h3>{escape(label)} <small class="muted">{escape(file)}</small></h3>'
    return f'<section class="example">{heading}<div class="four">{shown}</div></section>'


def _shared(report: Report) -> str:
    """The mask of all images."""
    found = report.dataset
    mask = centred(full_masks(found))[0]
    row = next(row for row in report.rows if row.name.startswith("Predictions kept with one mask"))
    mean = f"mean {float(found.share[0]):.3f}"
    picture = _figure(png(colormaps["magma"](mask**0.5)[..., :3]), f"The mask of all images, {mean}", mean)
    return (
        f'<h2>One mask for all images</h2><div class="shared"><div class="mask">{picture}</div><div>'
        "<p>A single mask that keeps the loss of all images at once shows what the model needs in common.</p>"
        f"<p>With it applied, {_sentence(row.value)} of the predictions are kept; with {escape(row.against)}, "
        f"{_sentence(row.control)}. {escape(row.reading)}</p></div></div>"
    )


def _sentence(value: Measured | None) -> str:
    """A value as words of a sentence."""
    return "" if value is None else f"{number(value.value)}%{interval(value)}"


def _figure(source: str, alt: str, caption: str) -> str:
    image = f'<img src="{source}" alt="{escape(alt)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def png(pixels: Tensor | np.ndarray) -> str:
    """An image as a data address: (C, H, W) tensors, or (H, W, 3) arrays, of values in [0, 1]."""
    if isinstance(pixels, Tensor):
        array = pixels.float().cpu().numpy()
        pixels = array.transpose(1, 2, 0) if len(array) == 3 else array.mean(0)
    buffer = io.BytesIO()
    Image.fromarray((255 * np.clip(pixels, 0, 1)).round().astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _numbers(report: Report) -> str:
    """The table of all rows."""
    rows = []
    for row in report.rows:
        drawn = intervals([(row.value, "0"), (row.control, "muted")])
        control = "none"
        if row.control is not None:
            control = f'<span class="value">{_sentence(row.control)}</span><small>{escape(row.against)}</small>'
        rows.append(
            f'<tr><th scope="row">{escape(row.name)}<small>{escape(row.reading)}</small></th>'
            f'<td data-label="Value"><span class="value">{number(row.value.value)}{escape(row.unit)}'
            f"{interval(row.value)}</span><small>n = {row.value.n} images</small></td>"
            f'<td data-label="Control" class="control">{control}</td><td>{drawn}</td></tr>'
        )
    heads = ("What it is, and how to read it", "Value (95% interval)", "Control", "0 to 100%")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return f'<table class="numbers"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def positions(name: str, numbers: dict[str, Any]) -> np.ndarray:
    """Where the bands of a curve lie on the x axis of its chart."""
    count = len(numbers["curves"][name])
    if name.startswith("heat"):
        height, width = numbers["size"]
        return np.array(numbers["radii"]) * nyquist((height, width))
    return (np.arange(count) + 0.5) / count * (360 if name.endswith("angular") else 1)


def _right(across: str) -> float:
    """The largest x of a chart: the largest frequency, or a full turn."""
    return 1.0 if across == ACROSS else 360.0


def _charts(report: Report) -> str:
    """All charts of one report."""
    numbers = report.as_dict()
    height, width = numbers["size"]
    parts = []
    for title, named, across, up, reading in CHARTS:
        lines = [Line(words, positions(name, numbers), report.curves[name]) for name, words in named.items()]
        mark = (nyquist((height, width)), "Nyquist") if across == ACROSS else None
        drawn = curves(lines, across, up, _right(across), f"{title}: {', '.join(named.values())}", mark)
        parts.append(f"<figure><h3>{title}</h3>{drawn}<figcaption>{reading}</figcaption></figure>")
    worst = float(report.heat.max())
    alt = f"Predictions changed by noise at {len(report.heat)} frequencies of the plane, at most {100 * worst:.1f}%"
    drawn = plane(report.frequencies, report.heat, (height, width), alt)
    caption = f"The area of a disc is the share of predictions changed by noise of this frequency, at most {worst:.0%}."
    parts.append(
        f"<figure><h3>Noise of one frequency, in the plane</h3>{drawn}<figcaption>{caption}</figcaption></figure>"
    )
    return "".join(parts)


def _about(report: Report, model: str) -> str:
    """How the report was made, and its files."""
    about = report.images.about
    spec = dict(about["spec"])
    solver = spec.pop("type")
    links = ", ".join(f'<a href="{name}">{name}</a>' for name in (TABLE, MASKS, NUMBERS))
    entries = {
        "Model": escape(model),
        "Weights": f"SHA-256 {about['weights_sha256'][:16]}",
        "Masks": escape(f"{solver}({', '.join(f'{name}={value}' for name, value in spec.items())})"),
        "Measured": f"{report.as_dict()['date']}, in {duration(report.seconds)}",
        "Versions": escape(f"fmlib {about['fmlib']}, torch {about['torch']}"),
        "Files": links,
    }
    return f'<dl class="about">{"".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in entries.items())}</dl>'


# -------------------------------------------------------------------------------------------------- several models


def compare(folders: Sequence[Path]) -> str:
    """Several reports side by side, as HTML: a table of rows by models, and their curves in the same charts.

    Args:
        folders: of the reports, or files in them.

    Raises:
        FmlibError: there are fewer than two or too many, or one is no report.
    """
    require(2 <= len(folders) <= MOST, f"compare 2 to {MOST} reports, not {len(folders)}")
    reports = [read(folder) for folder in folders]
    try:
        return document(COMPARISON, _comparison(reports))
    except (KeyError, TypeError, ValueError) as error:
        raise FmlibError("a report is damaged: write it again with 'fmlib explain'") from error


def write_comparison(folders: Sequence[Path], path: Path) -> Path:
    """Write the page of `compare` to a file, in place of a former page; returns its path.

    Raises:
        FmlibError: as `compare`; or the path is something else than a page, or cannot be written.
    """
    require(path.suffix in (".html", ".htm"), f"--out must be an HTML file, not {path}")
    require(not path.is_dir(), f"{path} is a folder: name a file for --out")
    content = compare(folders)
    try:
        own = not path.exists() or f"<title>{COMPARISON}</title>" in path.read_text(encoding="utf-8", errors="replace")
        require(own, f"{path} is another page than a comparison: choose another file for --out")
        write_bytes(path, content.encode())
    except OSError as error:
        raise FmlibError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def _comparison(reports: list[dict[str, Any]]) -> str:
    """The body of the page that `compare` writes."""
    names = [report["model"] for report in reports]
    names = [f"{name} ({index})" if names.count(name) > 1 else name for index, name in enumerate(names, 1)]
    same = len({report["images_sha256"] for report in reports}) == 1
    note = "" if same else '<p class="note">The models were measured on different images.</p>'
    rows: dict[str, dict[int, dict[str, Any]]] = {}
    for index, report in enumerate(reports):
        for row in report["rows"]:
            rows.setdefault(row["name"], {})[index] = row
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = "".join(_compared(name, found, len(names)) for name, found in rows.items())
    size = "".join(f"<td>{report['n']} images, {report['size'][0]} x {report['size'][1]}</td>" for report in reports)
    return (
        '<header><p class="over">Fourier masks of several classifiers</p>'
        f'<h1>{escape(", ".join(names))}</h1><p class="muted">Values with 95% intervals over the images, and their '
        f"controls below them.</p></header><main>{note}<h2>Numbers</h2>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Numbers"><table><thead><tr>'
        f'<th scope="col">What</th>{head}<th scope="col">0 to 100%</th></tr></thead><tbody>'
        f'<tr><th scope="row">Images</th>{size}<td></td></tr>{body}</tbody></table></div>'
        f'<h2>Curves</h2><p>Bands are 95% intervals over the images.</p><div class="charts">'
        f"{_overlaid(reports, names)}</div></main>"
    )


def _compared(name: str, found: dict[int, dict[str, Any]], count: int) -> str:
    """One row of the comparison: a number of every model that has it."""
    cells, drawn = [], []
    common = len({row["reading"] for row in found.values()}) == 1
    for index in range(count):
        row = found.get(index)
        if row is None:
            cells.append("<td>not measured</td>")
            continue
        value = Measured(**row["value"])
        control = f"<small>control {_sentence(Measured(**row['control']))}</small>" if row["control"] else ""
        drawn.append((value, str(index % 6)))
        shown = f'<span class="value">{number(value.value)}{escape(row["unit"])}{interval(value)}</span>'
        own = "" if common else f"<small>{escape(row['reading'])}</small>"
        cells.append(f"<td>{shown}{control}{own}</td>")
    reading = escape(next(iter(found.values()))["reading"]) if common else ""
    head = f'<th scope="row">{escape(name)}<small>{reading}</small></th>'
    return f"<tr>{head}{''.join(cells)}<td>{intervals(drawn)}</td></tr>"


def _overlaid(reports: list[dict[str, Any]], names: list[str]) -> str:
    """One chart per curve, with a line for each model."""
    parts = []
    for title, named, across, up, _ in CHARTS:
        for key, words in named.items():
            if key == "images radial":
                continue
            lines = [
                Line(name, positions(key, report), np.array(report["curves"][key]))
                for name, report in zip(names, reports, strict=True)
            ]
            drawn = curves(lines, across, up, _right(across), f"{title}, {words}: {', '.join(names)}")
            parts.append(f"<figure><h3>{title}: {words}</h3>{drawn}</figure>")
    return "".join(parts)
