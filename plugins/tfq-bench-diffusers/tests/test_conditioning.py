"""Prompts from files."""

from __future__ import annotations

import re

import pytest

from tfq_bench import api
from tfq_bench_diffusers.conditioning import PACKAGED, read_prompts

TOKENS_A_WORD = 3
CLIP_TOKENS = 77


def test_packaged_prompts_are_many_and_different():
    """Enough for a CLIP score, and none twice, whatever its case."""
    prompts = read_prompts("")
    assert 240 <= len(prompts) == len({prompt.casefold() for prompt in prompts})


def test_packaged_prompts_fit_a_text_encoder():
    """Plain ASCII, and short: words and marks at three tokens each stay below CLIP's limit."""
    assert PACKAGED.read_bytes().isascii()
    for prompt in read_prompts(""):
        pieces = re.findall(r"\w+|[^\w\s]", prompt)
        assert TOKENS_A_WORD * len(pieces) + 2 < CLIP_TOKENS, prompt


def test_packaged_prompts_are_mixed():
    """The first 32 begin in many ways: a suite with few images still sees many kinds."""
    assert 24 <= len({" ".join(prompt.split()[:3]) for prompt in read_prompts("")[:32]})


def test_file_without_prompts_is_refused(tmp_path):
    """It names the file and what was expected."""
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(api.AssetError, match=r"empty\.txt: expected a prompt in each line"):
        read_prompts(str(tmp_path / "empty.txt"))
