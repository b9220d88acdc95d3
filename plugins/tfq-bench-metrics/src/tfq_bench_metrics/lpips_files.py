"""The published backbone of LPIPS, which must be on disk. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from tfq_bench.api import Asset, OptionValue, fetched_file

__all__ = ["ALEXNET_FILE", "ALEXNET_SHA256", "alexnet_assets"]

ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
ALEXNET_SHA256 = "7be5be79"
"""First digits of the SHA-256 of torchvision's published file, which its name carries."""


def alexnet_assets(options: Mapping[str, OptionValue]) -> tuple[Asset, ...]:
    """The backbone of LPIPS, when no file is given."""
    if options["weights"]:
        return ()
    return (
        Asset(
            name=ALEXNET_FILE,
            what="torchvision's AlexNet, the backbone of LPIPS",
            kind="file",
            source=f"https://download.pytorch.org/models/{ALEXNET_FILE}",
            path=fetched_file(ALEXNET_FILE),
            size=244_400_000,  # torchvision states 233.087 MiB
            sha256=ALEXNET_SHA256,
            advice="A file that you have goes into option 'weights'.",
        ),
    )
