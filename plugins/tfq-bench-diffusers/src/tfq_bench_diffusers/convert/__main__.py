"""Turns a CompVis checkpoint into a folder that `source` of a model can name.

`python -m tfq_bench_diffusers.convert --checkpoint model.ckpt --family ldm4-bedroom --to DIR`
"""

# ruff: noqa: T201 - a command: its output is its interface

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tfq_bench import api
from tfq_bench_diffusers.convert import FAMILIES, convert

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when the folder was written, else that of the error."""
    families = "\n".join(f"  {name:15} {one.summary}" for name, one in FAMILIES.items())
    parser = argparse.ArgumentParser(
        prog="python -m tfq_bench_diffusers.convert",
        description="CompVis checkpoint of a latent diffusion model -> folder for diffusers.",
        epilog=f"families:\n{families}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="FILE", help=".safetensors, .ckpt or .pt"
    )
    parser.add_argument("--family", required=True, choices=list(FAMILIES), metavar="NAME")
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="a folder that is not there yet"
    )
    given = parser.parse_args(arguments)
    try:
        convert(given.checkpoint, FAMILIES[given.family], given.to)
    except api.TfqError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{given.to}: wrote {FAMILIES[given.family].summary}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
