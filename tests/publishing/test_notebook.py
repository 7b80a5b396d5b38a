"""What chapters say to readers who run them: the greeting, and errors in one line."""

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from fmlib.core.errors import FmlibError
from fmlib.pipeline.results import PUBLISHED, Results
from fmlib.publishing import notebook


@pytest.mark.parametrize(
    ("device", "says", "advises"),
    [("cpu", "CPU; Python", True), ("cuda", "GPU Tesla T4; Python", False)],
)
def test_the_greeting_names_the_gpu_or_says_how_to_get_one(device, says, advises, monkeypatch, capsys):
    monkeypatch.setattr(notebook, "pick_device", lambda: torch.device(device))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    notebook.greet()
    greeting = capsys.readouterr().out
    assert greeting.startswith(says)
    assert ("No GPU is selected" in greeting) == ("Runtime > Change runtime type > T4 GPU" in greeting) == advises


def test_a_profile_that_lacks_photographs_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv("FMLIB_DATA", raising=False)
    monkeypatch.setattr(notebook, "PUBLISHED", tmp_path)
    monkeypatch.chdir(tmp_path)
    for profile in ("laptop", "paper"):
        with pytest.raises(FmlibError, match=rf"'{profile}'.*\"quick\".*fmlib data --profile {profile}.*FMLIB_DATA"):
            notebook.load(profile)
    with pytest.raises(FmlibError, match="'huge'"):
        notebook.load("huge")
    assert not list(tmp_path.iterdir())


def test_a_notebook_shows_an_error_in_one_line(capsys):
    InteractiveShell().run_cell("from fmlib.publishing import notebook\nnotebook.load('huge')")
    (line,) = capsys.readouterr().out.strip().splitlines()
    assert line.startswith("fmlib: unknown profile 'huge'")


@pytest.mark.parametrize(("scales", "columns"), [(("laptop",), 4), (("laptop", "paper"), 5)])
def test_both_kinds_of_masks_are_compared_at_each_scale_that_has_them(scales, columns):
    """At profile paper, masks by the authors' schedule alone have these two statements of image masks."""
    places = [Results.open(PUBLISHED / name) for name in scales]
    table = notebook.comparison_table(
        places[0], {"F5.likeness": "S.own_image", "C.necessity": "S.own_image"}, *places[1:]
    )
    assert table.data.count("<th>") == columns
    for place in places:
        row = place.claim("C.necessity")
        assert f"{row['n']:,} images" in table.data
        assert f"<em>{row['verdict']}</em>" in table.data
