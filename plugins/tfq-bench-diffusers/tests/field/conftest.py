"""A model's folder that a test may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.register_assert_rewrite(f"{__package__}.changed_folders")


@pytest.fixture
def copy_folder(make_folder, tmp_path):
    """A family's folder to be changed."""

    def copy(family: str) -> Path:
        return shutil.copytree(make_folder(family), tmp_path / family)

    return copy
