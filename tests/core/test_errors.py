"""The error that users see."""

import pytest

from fmlib.core.errors import FmlibError, require


def test_require_raises_only_if_the_condition_fails():
    require(True, "unused")
    with pytest.raises(FmlibError, match=r"^as written$"):
        require(False, "as written")


def test_notebooks_show_one_line():
    assert FmlibError("as written")._render_traceback_() == ["fmlib: as written"]
