"""Chapters run in kernels that are forked: each in its own folder and process, and what one does no other sees."""

import os

import nbformat
import papermill
import pytest

from fmlib.pipeline import processes
from fmlib.publishing import kernels


def run(source, folder):
    """The text that one cell prints in a kernel of its own."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python", "language": "python"}
    done = papermill.execute_notebook(notebook, None, {}, progress_bar=False, cwd=str(folder), **kernels.options())
    return "".join(output.text for output in done.cells[0].outputs if output.get("name") == "stdout")


@pytest.mark.skipif(not processes.FORKED, reason="processes cannot be forked here")
def test_kernels_are_processes_of_their_own_that_have_imported_what_chapters_need(tmp_path, monkeypatch):
    monkeypatch.setenv("FMLIB_STORE", "seen")
    source = (
        "import os, sys; sys.mark = getattr(sys, 'mark', 0) + 1\n"
        "print(sys.mark, os.getcwd(), os.environ['FMLIB_STORE'], 'fmlib.studies.registry' in sys.modules, os.getpid())"
    )
    said = [run(source, tmp_path).split()[-5:] for _ in range(2)]
    assert said[0][:4] == said[1][:4] == ["1", str(tmp_path), "seen", "True"]
    assert len({str(os.getpid()), said[0][4], said[1][4]}) == 3
    for *_, number in said:
        with pytest.raises(ProcessLookupError):
            os.kill(int(number), 0)


def test_where_processes_cannot_be_forked_jupyter_starts_kernels_as_always(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "FORKED", False)
    assert kernels.options() == {}
