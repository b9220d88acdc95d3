"""Published weights that the host's metrics need on disk. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from tfq_bench.assets.declared import Asset, fetched_file
from tfq_bench.types import OptionValue

__all__ = ["INCEPTION_FILE", "INCEPTION_SHA256", "inception_assets"]

INCEPTION_FILE = "inception-2015-12-05.pt"
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
"""Of the file as NVIDIA publishes it (95,607,719 bytes), which clean-fid uses."""


def inception_assets(options: Mapping[str, OptionValue]) -> tuple[Asset, ...]:
    """The Inception network of FID, when the extractor is `inception` and no file is given."""
    if options["extractor"] != "inception" or options["inception_weights"]:
        return ()
    return (
        Asset(
            name=INCEPTION_FILE,
            what="the Inception network that defines FID",
            kind="file",
            source="https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
            + INCEPTION_FILE,
            path=fetched_file(INCEPTION_FILE),
            size=95_607_719,
            sha256=INCEPTION_SHA256,
            advice="A file that you have goes into option 'inception_weights'.",
        ),
    )
