"""A run folder: what was asked, what was planned, what was found, and where it took place.

suite.toml  plan.json  records.jsonl  env-<id>.json  logs/<cell>.log
artefacts/<stage>/<key>/  report.html  run.lock
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfq_bench.errors import StoreError
from tfq_bench.foreign.text import parse_json, printable
from tfq_bench.provenance.environment import environment_id
from tfq_bench.store.artefacts import ArtefactStore
from tfq_bench.store.disk import store_error, write_atomically
from tfq_bench.store.plan_file import read_plan, refuse_later, write_plan
from tfq_bench.store.records import read
from tfq_bench.store.shapes import ANYTHING, NUMBER, fields, many, mapping

if TYPE_CHECKING:
    import numpy as np

    from tfq_bench.types import Record

__all__ = ["RunFolder"]

_ENVIRONMENT = mapping(
    ANYTHING,
    {"hardware": fields({"memory_bytes": NUMBER}, {"gpus": many(mapping(ANYTHING))}, loose=True)},
)

log = logging.getLogger("tfq_bench.store")


class RunFolder:
    """A folder with a run in it; made or found with `prepare`, found with `open`.

    Args:
        path: the folder.

    Attributes:
        notes: what was found damaged and is written anew, as sentences.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []

    @classmethod
    def prepare(cls, path: Path) -> RunFolder:
        """A folder that can hold a run, made if absent; a run that is there stays as it is.

        Raises:
            StoreError: `path` holds something other than a run, a run of a later schema, or
                cannot be written.
        """
        try:
            if (path / "plan.json").is_file():
                refuse_later(path / "plan.json")
                return cls._with_plan(path)
            if path.exists() and _has_foreign_content(path):
                raise StoreError(
                    f"expected a run folder or nothing at '{path}', found other files. "
                    "Choose another folder.",
                    file=path,
                )
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise store_error(error, path) from error
        return cls(path)

    @classmethod
    def _with_plan(cls, path: Path) -> RunFolder:
        run = cls(path)
        try:
            run.plan()
        except StoreError as error:  # damaged, or of an earlier version: `write` makes it anew
            if not _is_own(path):
                raise
            run.notes.append(f"plan.json is written anew: {error.__cause__}.")
        return run

    def tidy(self) -> None:
        """Deletes what a killed run left here: half-written files, finished checkpoints.

        Hold the lease.

        Raises:
            StoreError: a damaged artefact cannot be deleted.
        """
        for path in self.path.glob(".*-*"):
            name = path.name[1:].rpartition("-")[0]
            if _OWN.fullmatch(name) and path.is_file():
                path.unlink(missing_ok=True)
        self.artefacts.remove_finished_checkpoints()
        self.notes += self.artefacts.remove_damaged()

    def write(self, suite_text: str, plan_json: Mapping[str, Any]) -> None:
        """Writes suite and plan; records and artefacts stay. Hold the lease."""
        write_atomically(self.path / "suite.toml", suite_text)
        write_plan(self.path / "plan.json", plan_json)
        self.__dict__.pop("_plan", None)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The run at `path`.

        Raises:
            StoreError: there is none, or it has another schema.
        """
        run = cls(path)
        if not (path / "plan.json").is_file():
            found = "no plan.json in it" if path.is_dir() else "no such folder"
            raise StoreError(
                f"expected a run folder at '{path}', found {found}. "
                "'tfq-bench run SUITE' makes one.",
                file=path,
                expected="a run folder",
                found=found,
            )
        run.plan()
        return run

    @property
    def records_path(self) -> Path:
        """Where records are appended."""
        return self.path / "records.jsonl"

    def records(self) -> tuple[Record, ...]:
        """The latest current record per (cell, metric); see `records.read`.

        Numbers that come from no evaluation of the plan, and failures and skips of another plan,
        are left out: an edit of the suite or of the code has made them old.
        """
        plan = self.plan()
        sources = {cell["key"]: {*cell["keys"]["evaluate"]} for cell in plan["cells"]}

        def current(record: Record) -> bool:
            if record.source is None:
                return record.cell in sources and record.run == plan["id"]
            return record.source in sources.get(record.cell, ())

        return read(self.records_path, current)

    def plan(self) -> dict[str, Any]:
        """The content of `plan.json`; StoreError when it is not as it was written."""
        return self._plan

    @cached_property
    def _plan(self) -> dict[str, Any]:
        return read_plan(self.path / "plan.json")

    def plan_before(self) -> dict[str, Any] | None:
        """The content of `plan.json`; None where there is none that can be read."""
        try:
            return self.plan()
        except StoreError:
            return None

    def environments(self) -> dict[str, dict[str, Any]]:
        """Every environment that took part, by id.

        A file that is not as it was written is left out with a warning: numbers do not depend on
        it, and where their hardware is unknown, times do not compare.
        """
        found = {}
        for path in sorted(self.path.glob("env-*.json")):
            name = path.stem.removeprefix("env-")
            try:
                content = parse_json(path.read_bytes())
                _ENVIRONMENT(content, "")
                if environment_id(content) != name:
                    raise ValueError("it was changed after it was written")
            except (OSError, ValueError) as error:
                log.warning("'%s' is left out: %s", path, error)
                continue
            found[name] = content
        return found

    def add_environment(self, environment: Mapping[str, Any]) -> str:
        """Stores an environment once and returns its id; a file that was changed is mended."""
        name = environment_id(environment)
        path = self.path / f"env-{name}.json"
        text = json.dumps(environment, indent=1, sort_keys=True) + "\n"
        try:
            found = path.read_bytes()
        except FileNotFoundError:
            write_atomically(path, text)
        except OSError as error:
            raise store_error(error, path, "read") from error
        else:
            if found != text.encode():
                write_atomically(path, text)
                self.notes.append(f"{path.name} is written anew: it was changed or damaged.")
        return name

    @cached_property
    def artefacts(self) -> ArtefactStore:
        """The artefacts of this run."""
        return ArtefactStore(self.path / "artefacts")

    def images(self, cell_key: str) -> np.ndarray | None:
        """A cell's images, uint8 `[N, H, W, 3]` ordered by index; None unless all are there."""
        import numpy as np
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        keys = self._cell(cell_key)["keys"]["sample"]
        if not keys or not all(self.artefacts.has("sample", key) for key in keys):
            return None
        folders = [self.artefacts.open("sample", key) for key in keys]
        try:
            shards = [load_file(folder / "images.safetensors") for folder in folders]
            index = np.concatenate([shard["index"] for shard in shards])
            images = np.concatenate([shard["images"] for shard in shards])
            if images.dtype != np.uint8 or images.ndim != 4 or index.shape != images.shape[:1]:
                raise ValueError(f"{images.dtype} of shape {images.shape}")
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise StoreError(
                f"'{self.path}': expected images uint8 [N, H, W, 3] and their index in the samples "
                f"of cell '{cell_key}', found {type(error).__name__}: {printable(error, 200)}. "
                f"Delete the folders {', '.join(map(str, folders))} and run the suite again.",
                file=self.path,
            ) from None
        return images[np.argsort(index, kind="stable")]

    def log_path(self, cell_key: str) -> Path:
        """Where a cell's log is or would be."""
        return self.path / "logs" / f"{cell_key}.log"

    @contextlib.contextmanager
    def lease(self) -> Iterator[None]:
        """Holds the run for this process until the block ends or the process does.

        Raises:
            StoreError: another process holds it; names its process id.
        """
        path = self.path / "run.lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise store_error(error, path) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
                raise StoreError(
                    f"'{self.path}' is in use by process {holder or 'of unknown id'}. Wait for it "
                    "or end it, then repeat the command.",
                    file=self.path,
                ) from None
            except OSError as error:
                raise store_error(error, path) from error
            with contextlib.suppress(OSError):  # a full disk must not refuse the lease
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def _cell(self, key: str) -> dict[str, Any]:
        for cell in self.plan()["cells"]:
            if cell["key"] == key:
                found: dict[str, Any] = cell
                return found
        raise StoreError(
            f"'{self.path}': expected a cell '{key}' in plan.json, found none.", file=self.path
        )


_OWN = re.compile(
    r"run\.lock|suite\.toml|plan\.json|records\.jsonl.*|env-\w+\.json|logs|artefacts|report\.\w+"
)


def _is_own(path: Path) -> bool:
    """Whether nothing lies at `path` but what a run writes; its lock is written first."""
    return (path / "run.lock").is_file() and all(
        _OWN.fullmatch(entry.name) or entry.name.startswith(".") for entry in path.iterdir()
    )


def _has_foreign_content(path: Path) -> bool:
    return path.is_file() or (any(path.iterdir()) and not _is_own(path))
