"""The command line: each bad input gives one clear line and exit code 2, and leaves nothing half-written."""

import errno
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ci.faults.kills import INTERRUPTED
from fmlib import cli
from fmlib.cli import main
from fmlib.core.data import SELECTIONS
from fmlib.core.device import BFLOAT16
from fmlib.core.errors import FmlibError
from fmlib.pipeline import results
from fmlib.pipeline.store import Store
from fmlib.publishing import build, pdf
from fmlib.studies import registry
from fmlib.studies.shared.profiles import PROFILES
from fmlib.studies.shared.setup import Setup
from fmlib.studies.what_it_costs.benchmark import CASES


@pytest.fixture
def fmlib(tmp_path, capsys):
    """Run `fmlib WORDS` with a store in a temporary folder; returns exit code, output and error lines."""

    def call(*words):
        code = main([*words, "--store", str(tmp_path / "store"), "--device", "cpu", "--quiet"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err.strip().splitlines()

    return call


def python(source, *words, **environment):
    """Run Python source in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", source, *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=Path(__file__).parents[1],
        env=os.environ | environment,
    )


def refused(result, *parts):
    code, _, errors = result
    assert code == 2
    assert len(errors) == 1
    assert all(part in errors[0] for part in ("fmlib: ", *parts)), errors


def imagenette(root, images=2, names=("n01440764", "n02102040")):
    """A tiny tree in Imagenette's layout."""
    pixels = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    for split in ("train", "val"):
        for name in names:
            folder = root / "imagenette2-160" / split / name
            folder.mkdir(parents=True)
            for number in range(images):
                Image.fromarray(pixels).save(folder / f"{number}.JPEG")
    return root


# -------------------------------------------------------------------------------------------------------- grammar

COMMANDS = [
    ["explain"],
    ["compare"],
    ["playground"],
    ["run"],
    ["status"],
    ["publish"],
    ["data"],
    ["bench"],
    ["freqbench"],
    ["book", "build"],
    ["book", "publish"],
    ["book", "pdf"],
    ["store", "list"],
    ["store", "verify"],
    ["store", "gc"],
    ["store", "prune"],
]
#: What `--help` must not import: each takes a noticeable time.
HEAVY = {"matplotlib", "numpy", "pandas", "scipy", "sklearn", "torch", "torchvision", "tqdm", "umap"}


@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["explain", "--help"], ["book", "build", "--help"], ["run", "--sed", "1"]]
)
def test_help_and_wrong_options_import_nothing_heavy(words):
    source = "import sys; from fmlib.cli import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    result = python(source, *words)
    assert result.returncode == 0, result.stderr
    assert HEAVY.isdisjoint(result.stderr.split())


def test_help_lists_the_commands(capsys):
    for words, group in (
        (
            [],
            [
                "explain",
                "compare",
                "playground",
                "run",
                "status",
                "publish",
                "data",
                "bench",
                "freqbench",
                "book",
                "store",
            ],
        ),
        (["book"], ["build", "publish", "pdf"]),
        (["store"], ["list", "verify", "gc", "prune"]),
    ):
        assert main([*words, "--help"]) == 0
        listed = [line.split()[0] for line in capsys.readouterr().out.partition("Commands:")[2].splitlines() if line]
        assert sorted(listed) == sorted(group)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(words, capsys):
    assert main([*words, "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"Usage: fmlib {' '.join(words)}" in out
    if words[-1] in ("run", "build"):
        assert "--workers" in out
    if words in ([*group, name] for group, name in (([], "run"), ([], "data"), (["book"], "build"))):
        assert all(
            option in out for option in ("--profile", "--seed", "--device", "--quiet", "FMLIB_DATA", "FMLIB_STORE")
        )


def test_help_names_every_profile_and_case(capsys):
    main(["bench", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert f"{', '.join(list(PROFILES)[:-1])} or {list(PROFILES)[-1]}" in out
    assert f"{', '.join(list(CASES)[:-1])} or {list(CASES)[-1]}" in out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["missing command", "'fmlib --help'"]),
        (["rnu"], ["'rnu'", "'fmlib --help'"]),
        (["book"], ["missing command", "'fmlib book --help'"]),
        (["book", "--publish"], ["--publish", "'fmlib book --help'"]),
        (["run", "--huge"], ["--huge", "'fmlib run --help'"]),
        (["run", "--seed", "x"], ["--seed", "integer", "'fmlib run --help'"]),
        (["run", "--seed"], ["--seed", "requires an argument"]),
        (["book", "pdf", "now"], ["now", "'fmlib book pdf --help'"]),
    ],
    ids=lambda words: " ".join(words) or "nothing",
)
def test_words_that_are_not_understood(words, parts, capsys):
    code = main(words)
    refused((code, "", capsys.readouterr().err.strip().splitlines()), *parts)


@pytest.mark.parametrize("command", ["run", "status", "publish", "data"])
def test_a_seed_below_zero(fmlib, command, tmp_path):
    refused(fmlib(command, "--seed", "-1"), "--seed", "0 or more", "-1")
    assert not (tmp_path / "store").exists()


def test_options_of_the_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FMLIB_STORE", str(tmp_path / "kept"))
    monkeypatch.setenv("FMLIB_DATA", str(tmp_path / "nowhere"))
    assert main(["run", "harmonics", "--device", "cpu", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["data", "--profile", "laptop", "--device", "cpu"]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------- bad input


def test_unknown_profile(fmlib):
    refused(fmlib("run", "--profile", "huge"), "'huge'", "quick, laptop, paper")


@pytest.mark.parametrize("command", ["run", "status", "publish"])
def test_unknown_experiment(fmlib, tmp_path, command):
    refused(fmlib(command, "networks", "netwroks"), "'netwroks'", "dataset-masks")
    assert not (tmp_path / "store").exists()


def test_all_beside_others_is_all(fmlib):
    lines = fmlib("status", "harmonics", "all")[1].splitlines()
    assert [name for name in registry.all_experiments() if any(line.startswith(name) for line in lines)] == list(
        registry.all_experiments()
    )


def test_no_workers(fmlib):
    refused(fmlib("run", "harmonics", "--workers", "0"), "at least one worker")


@pytest.mark.parametrize("words", [["run", "networks"], ["book", "build"]], ids=" ".join)
@pytest.mark.parametrize("place", ["file", "file/below", "file/below/further"])
def test_a_store_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch, capsys, words, place):
    monkeypatch.setattr(registry, "run", lambda *_: pytest.fail("the work has begun"))
    (tmp_path / "file").touch()
    code = main([*words, "--store", str(tmp_path / place), "--device", "cpu"])
    refused((code, "", capsys.readouterr().err.strip().splitlines()), str(tmp_path / place), "--store", "FMLIB_STORE")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
def test_a_store_without_permission(fmlib, monkeypatch, error):
    def refuse(**options):
        raise error

    monkeypatch.setattr(registry, "run", lambda *_: pytest.fail("the work has begun"))
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    refused(fmlib("run", "networks"), "cannot write to the store", error.strerror)


@pytest.mark.parametrize("command", [["run", "harmonics"], ["publish"], ["bench"], ["book", "build"]], ids=" ".join)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_is_one_line(fmlib, monkeypatch, command, code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code), "/a/file")

    for place in ("run", "all_claims", "experiments"):
        monkeypatch.setattr(registry, place, refuse)
    refused(fmlib(*command), os.strerror(code), "/a/file", "then run again")


def test_other_errors_of_the_system_keep_their_traceback(fmlib, monkeypatch):
    def fail(*_, **__):
        raise FileNotFoundError(errno.ENOENT, "No such file", "/a/file")

    monkeypatch.setattr(registry, "run", fail)
    with pytest.raises(FileNotFoundError):
        fmlib("run", "harmonics")


def test_the_book_is_not_built_on_damaged_results(fmlib, monkeypatch):
    def damaged():
        raise FmlibError("masks.csv does not match its checksum")

    monkeypatch.setattr(registry, "run", lambda *_: pytest.fail("the work has begun"))
    monkeypatch.setattr(registry, "published", damaged)
    refused(fmlib("book", "build"), "masks.csv does not match its checksum")


# ------------------------------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize(
    ("module", "words"),
    [("torch", ["run"]), ("pandas", ["book", "publish"])],
    ids=["torch", "pandas"],
)
def test_ctrl_c_during_imports(module, words):
    result = python(INTERRUPTED, module, *words)
    assert result.returncode == 130
    assert result.stderr.strip().splitlines() == ["fmlib: stopped; run the same command again to go on"]
    assert not result.stdout


def test_ctrl_c_during_the_work(fmlib, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "run", interrupted)
    code, _, errors = fmlib("run", "harmonics")
    assert (code, errors) == (130, ["fmlib: stopped; run the same command again to go on"])


# ------------------------------------------------------------------------------------------------------ progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_shows_bars_unless_told_not_to(tmp_path, monkeypatch, quiet):
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    words = ["run", "synthetic", "--store", str(tmp_path / "store"), "--device", "cpu", "--workers", "1"]
    monkeypatch.setattr(Store, "try_compute", lambda *_: True)
    assert main([*words, *(["--quiet"] if quiet else [])]) == 0
    total = len(registry.experiments(["synthetic"])[0].tree(Setup(PROFILES["quick"], 0, torch.device("cpu"))))
    if quiet:
        assert not err.getvalue()
    else:
        assert f"0 of {total} tasks, about" in err.getvalue()
        assert f"{total} of {total} tasks, done" in err.getvalue()
        assert "computing network N (quick tiny_vgg, seed 0)" in err.getvalue()
        assert not out.getvalue()  # the bars say it


def test_elsewhere_there_are_plain_lines(fmlib, monkeypatch):
    monkeypatch.setattr(registry, "run", lambda chosen, setup, store, *_, **more: store.say("computing it"))
    code, out, errors = fmlib("run", "harmonics")
    assert (code, out, errors) == (0, "computing it\n", [])


# ------------------------------------------------------------------------------------------------------ commands


@pytest.mark.parametrize("words", [(), ("--bfloat16",)], ids=["full", "reduced"])
def test_precision_on_the_cpu_is_as_asked(fmlib, words):
    try:
        assert fmlib("run", "harmonics", *words)[0] == 0
        assert ("cpu" in BFLOAT16) == bool(words)
    finally:
        BFLOAT16.discard("cpu")


def test_unknown_device(fmlib, capsys):
    assert main(["run", "--device", "quantum"]) == 2
    assert "quantum" in capsys.readouterr().err


def test_images_without_a_folder(fmlib, monkeypatch):
    monkeypatch.delenv("FMLIB_DATA", raising=False)
    refused(fmlib("run", "networks", "--profile", "laptop"), "--data-root")


def test_missing_data_folder(fmlib, tmp_path):
    refused(fmlib("data", "--profile", "laptop", "--data-root", str(tmp_path / "nowhere")), "nowhere", "does not exist")


def test_folder_without_imagenette(fmlib, tmp_path):
    refused(fmlib("data", "--profile", "laptop", "--data-root", str(tmp_path)), "imagenette2-160")


def test_partial_classes(fmlib, tmp_path):
    root = imagenette(tmp_path / "data")
    refused(fmlib("data", "--profile", "laptop", "--data-root", str(root)), "n02979186", "extract")


def test_partial_images(fmlib, tmp_path):
    root = imagenette(tmp_path / "data", names=SELECTIONS["paper-text"][0])
    refused(fmlib("run", "networks", "--profile", "laptop", "--data-root", str(root)), "10 images", "4710")
    assert not (tmp_path / "store").exists()


def test_truncated_image(fmlib, tmp_path, monkeypatch):
    names = SELECTIONS["paper-text"][0]
    root = imagenette(tmp_path / "data", names=names)
    monkeypatch.setitem(SELECTIONS, "paper-text", (names, 10, 10))
    broken = root / "imagenette2-160" / "train" / names[0] / "1.JPEG"
    broken.write_bytes(broken.read_bytes()[:400])
    refused(fmlib("run", "networks", "--profile", "laptop", "--data-root", str(root)), str(broken), "replace")
    assert not list((tmp_path / "store").rglob("spec.json"))


def test_status_knows_what_is_missing_and_its_cost(fmlib):
    code, out, errors = fmlib("status", "synthetic")
    assert code == 0
    assert not errors
    assert "0 of " in out
    assert "missing  network N (quick tiny_vgg, seed 0)" in out
    assert "left" in out


def test_status_without_images_says_so_and_goes_on(fmlib, monkeypatch):
    monkeypatch.delenv("FMLIB_DATA", raising=False)
    code, out, _ = fmlib("status", "--profile", "laptop")
    assert code == 0
    assert re.search("networks +cannot be planned: .*--data-root", out)
    assert "missing  network N (quick tiny_vgg, seed 0)" in out  # experiment synthetic needs none


def test_a_download_that_fails(fmlib, tmp_path, monkeypatch):
    def offline(*args, **options):
        raise OSError("no route")

    monkeypatch.setattr("torchvision.datasets.Imagenette", offline)
    root = str(tmp_path / "images")
    refused(fmlib("data", "--profile", "laptop", "--data-root", root, "--download"), "no route", "try again")


@pytest.mark.parametrize("command", ["run", "status", "publish"])
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--networks", "Q"], ["unknown network 'Q'", "N, A, S, T, R"]),
        (["--networks", "N,,A"], ["unknown network ''"]),
        (["--networks", ""], ["unknown network ''"]),
        (["--networks", "A"], ["N must be among"]),
        (["uniqueness", "--networks", "N,A"], ["uniqueness needs network N", "leave out --networks"]),
        (["--image-masks", "-5"], ["at least 0", "-5"]),
    ],
)
def test_impossible_networks_and_image_masks(fmlib, tmp_path, command, options, parts):
    refused(fmlib(command, *options), *parts)
    assert not (tmp_path / "store").exists()


def test_published_results_that_cannot_be_used(fmlib):
    refused(fmlib("run", "networks", "--published", "networks"), "no results", "quick")
    for names in ("tables", "networks,", ""):
        result = fmlib("run", "networks", "--profile", "laptop", "--published", names)
        refused(result, repr(names.split(",")[-1]), "choose from networks, dataset-masks")


def test_status_of_one_network_lists_what_needs_no_other(fmlib):
    code, lines, _ = fmlib("status", "--networks", "N")
    assert code == 0
    assert "minimal-tables       0 of" in lines
    for absent in ("uniqueness", "network A", "seed 1"):
        assert absent not in lines


def test_publishing_before_computing(fmlib):
    refused(fmlib("publish"), "missing", "fmlib run")


def test_an_installed_package_writes_nothing_into_itself(fmlib, monkeypatch, capsys):
    monkeypatch.setattr(results, "PUBLISHED", Path("site-packages/fmlib/published"))
    for command in (["publish"], ["bench"], ["book", "build"]):
        refused(fmlib(*command), "checkout", "clone")
    for command in (["book", "publish"], ["book", "pdf"]):
        code = main(command)
        refused((code, "", capsys.readouterr().err.strip().splitlines()), "checkout", "clone")


def test_the_book_says_which_package_it_lacks(fmlib, monkeypatch):
    monkeypatch.delattr("fmlib.publishing.build")
    monkeypatch.delitem(sys.modules, "fmlib.publishing.build")
    monkeypatch.setitem(sys.modules, "papermill", None)
    refused(fmlib("book", "build"), "papermill", "[book]")


def test_book_build_computes_publishes_and_builds(fmlib, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(build, "BUILD", tmp_path / "_build")
    monkeypatch.setattr(
        registry, "run", lambda chosen, setup, store, workers, **more: called.append((len(chosen), workers))
    )
    monkeypatch.setattr(cli, "_publish", lambda chosen, setup, store, folder: called.append((len(chosen), folder)))
    monkeypatch.setattr(build, "build", lambda results: tmp_path / "index.html")
    code, out, _ = fmlib("book", "build", "--workers", "3")
    count = len(registry.all_experiments())
    assert code == 0
    assert called == [(count, 3), (count, tmp_path / "_build" / "results")]
    assert str(tmp_path / "index.html") in out


def test_book_publish_and_pdf(monkeypatch, capsys, tmp_path):
    called = []
    monkeypatch.setattr(build, "publish", lambda: called.append("publish"))
    monkeypatch.setattr(pdf, "pdf", lambda: tmp_path / "book.pdf")
    assert main(["book", "publish"]) == main(["book", "pdf"]) == 0
    assert called == ["publish"]
    assert str(tmp_path / "book.pdf") in capsys.readouterr().out


def test_data_of_a_profile_with_generated_images(fmlib):
    code, out, _ = fmlib("data")
    assert code == 0
    assert "nothing to download" in out
