"""The command `tfq-bench-cuda`: searches the fastest tiles for a network's products on this GPU.

Exit codes are the host's: 0 done, 2 usage, file or machine, 3 some products could not be timed,
5 nothing to do, 70 a bug, 130 interrupted, 141 the reader went away.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tfq_bench.api import LoweringError, NothingToDo, TfqError, UsageError, printable

if TYPE_CHECKING:
    from tfq_bench_cuda.tune import Finding

__all__ = ["main"]

_FAILED, _BUG, _INTERRUPTED, _BROKEN_PIPE = 3, 70, 130, 141

_EPILOG = """\
examples:
  tfq-bench-cuda tune runs/sdxl-speed
  tfq-bench-cuda tune --linear 2048x1280x1280:residual --linear 2048x5120x1280:geglu+codes
  tfq-bench-cuda tune --conv 2x64x64x640x640:shift

A product ends in some of silu, gelu, gelu-tanh, geglu, shift, gate, residual, codes. Tiles change
times and no digit. They are kept in ~/.cache/tfq-bench/cuda-tiles.json, or in the file that
TFQ_BENCH_CUDA_TILES names, and found there by later runs on a card of the same name.
"""


class _Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises UsageError, as the host's."""

    def error(self, message: str) -> NoReturn:
        """Raises it with `message`."""
        raise UsageError(f"{message.rstrip('.')}. See '{self.prog} --help'.")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (default: the process's) and returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    debug = "--debug" in words
    try:
        args = _parser().parse_args(words)
        code = _tune(args)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # --help ends here
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        return _failed(["interrupted; what was found is kept."], _INTERRUPTED, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _BROKEN_PIPE
    except LoweringError as error:  # of a machine or file here, not of a cell
        return _failed(error.lines, UsageError.exit_code, debug)
    except TfqError as error:
        return _failed(error.lines, error.exit_code, debug)
    except OSError as error:
        where = f"'{error.filename}'" if error.filename else "a file or the output"
        text = f"cannot read or write {where}: {error.strerror or error}."
        return _failed([text], UsageError.exit_code, debug)
    except Exception as error:
        text = (
            f"unexpected {type(error).__name__}: {printable(error)}. This is a bug in "
            f"tfq-bench-cuda.{'' if debug else ' Repeat with --debug for the traceback.'}"
        )
        return _failed([text], _BUG, debug)


def _parser() -> argparse.ArgumentParser:
    outer = _Parser(
        prog="tfq-bench-cuda",
        description="Tools of the backend 'cuda' of tfq-bench.",
        allow_abbrev=False,
    )
    verbs = outer.add_subparsers(metavar="COMMAND", required=True)
    what = "search the fastest tiles for the products of a network on this machine's GPU"
    parser = verbs.add_parser(
        "tune",
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "run",
        nargs="?",
        type=Path,
        metavar="RUN",
        help="run folder: the products that its cells of backend 'cuda' are made of",
    )
    parser.add_argument(
        "--linear",
        action="append",
        default=[],
        metavar="ROWSxOUTPUTSxINPUTS[:ENDING]",
        help="a matrix product; may be repeated",
    )
    parser.add_argument(
        "--conv",
        action="append",
        default=[],
        metavar="IMAGESxHEIGHTxWIDTHxINPUTSxOUTPUTS[:ENDING]",
        help="a 3x3 convolution that keeps the size; may be repeated",
    )
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        default="bfloat16",
        help="of results and residuals of --linear and --conv (default: %(default)s)",
    )
    parser.add_argument(
        "--shapes",
        type=_count,
        default=12,
        metavar="N",
        help="shapes of tiles to try for a product, most promising first (default: %(default)s)",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return outer


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 1000, found '{text}'")
    return int(text)


def _tune(args: argparse.Namespace) -> int:
    from tfq_bench_cuda.wanted import conv, linear, one_per_shape, products_of_run

    wanted: Counter[Any] = Counter()
    wanted.update(linear(text, args.dtype) for text in args.linear)
    wanted.update(conv(text, args.dtype) for text in args.conv)
    if args.run is not None:
        wanted.update(products_of_run(args.run))
    if not wanted:
        if args.run is None:
            raise UsageError(
                "expected a run folder, --linear or --conv, found none. See 'tfq-bench-cuda tune "
                "--help'."
            )
        raise NothingToDo(f"'{args.run}': its cells of backend 'cuda' have no int8 product.")

    from tfq_bench_cuda.kernels.tuned import keep
    from tfq_bench_cuda.machine import check_machine
    from tfq_bench_cuda.stopwatch import Stopwatch
    from tfq_bench_cuda.tune import search, table
    from tfq_bench_cuda.watchdog import Watched

    arch = check_machine("cuda")
    products = one_per_shape(wanted)
    _say(f"{len(products)} products, {args.shapes} shapes of tiles each")
    watched = Watched(partial(Stopwatch, arch))
    findings: list[Finding] = []
    try:
        for finding in search(products, arch, watched, shapes=args.shapes, say=_say):
            findings.append(finding)
            if finding.better:
                keep(arch, {finding.product.shape: finding.found})
            for tile, reason in finding.left_out:
                _say(f"{finding.product}: {tile}, {tile.stages} stages: {reason}")
    finally:
        watched.close()
        if findings:
            print(table(findings))
    print(f"\n{_told(findings)}")
    untimed = sum(finding.us_before is None for finding in findings)
    if untimed:
        _say(f"{untimed} of {len(findings)} products could not be timed; see above.")
    return _FAILED if untimed else 0


def _told(findings: Sequence[Finding]) -> str:
    from tfq_bench_cuda.kernels.tuned import tiles_file

    better = sum(finding.better for finding in findings)
    if not better:
        return "No tile is 2 % faster than the one that is chosen already; nothing is kept."
    return (
        f"{better} of {len(findings)} tiles are kept in '{tiles_file()}'. Runs that start from now "
        "on use them; times that a run folder holds already stay as they are."
    )


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)


def _failed(lines: Sequence[str], code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    first, *rest = lines
    _say(f"tfq-bench-cuda: {first}")
    for line in rest:
        _say(f"  {line}")
    return code
