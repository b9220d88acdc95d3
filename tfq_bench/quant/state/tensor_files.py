"""Many tensors in a folder of safetensors files, none of which must fit in memory at once.

A network of billions of weights is quantized layer by layer; each layer's tensors go to disk as
soon as they are made, and are read again one layer at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tfq_bench.errors import StoreError
from tfq_bench.foreign.text import printable
from tfq_bench.keys import file_digest

__all__ = ["TensorFile", "TensorReader", "TensorWriter"]

FILE_BYTES = 64 * 2**20
"""A file is closed once it holds this much; its tensors are in memory until then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFile:
    """One file of a folder, with what it must be."""

    file: str
    bytes: int
    sha256: str


class TensorWriter:
    """Writes `tensors-0001.safetensors` and so on; the same tensors give the same bytes.

    Args:
        folder: exists; files of the same names are replaced.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[TensorFile] = []
        self._held: dict[str, Tensor] = {}

    def add(self, tensors: Mapping[str, Tensor]) -> str:
        """The name of the file that will hold `tensors`, all of them.

        Raises:
            OSError: the folder cannot be written.
        """
        name = self._name()
        self._held.update(tensors)
        if sum(tensor.nbytes for tensor in self._held.values()) >= FILE_BYTES:
            self._write()
        return name

    def finish(self) -> tuple[TensorFile, ...]:
        """Writes what is left; the files, in the order in which they were written."""
        if self._held or not self._files:
            self._write()
        return tuple(self._files)

    def _name(self) -> str:
        return f"tensors-{len(self._files) + 1:04d}.safetensors"

    def _write(self) -> None:
        path = self._folder / self._name()
        try:
            save_file(self._held, path)
        except SafetensorError as error:  # a full disk comes as one of these
            raise OSError(str(error)) from error
        self._held = {}
        self._files.append(
            TensorFile(file=path.name, bytes=path.stat().st_size, sha256=file_digest(path))
        )


class TensorReader:
    """Reads tensors of a folder, each when it is asked for.

    Args:
        files: what `TensorWriter.finish` returned.
    """

    def __init__(self, folder: Path, files: Sequence[TensorFile]) -> None:
        self._folder = folder
        self._files = files

    def check(self) -> None:
        """Nothing, when every file is what was written.

        Raises:
            StoreError: names the file, what was expected and what was found.
        """
        for file in self._files:
            path = self._folder / file.file
            if path.name != file.file or path.is_symlink():
                raise StoreError(
                    f"{self._folder}: expected files of tensors in it, found the name "
                    f"{printable(file.file, 80)!r}{', a link' if path.is_symlink() else ''}."
                )
            try:
                found, size = file_digest(path), path.stat().st_size
            except OSError as error:
                raise StoreError(f"{path}: expected a file of tensors, found {error}.") from error
            if found != file.sha256:
                raise StoreError(
                    f"{path}: expected {file.bytes} bytes with sha256 {file.sha256}, found {size} "
                    f"bytes with sha256 {found}; delete the artefact's folder and run again."
                )

    def read(self, file: str, prefix: str) -> dict[str, Tensor]:
        """The tensors of `file` whose name begins with `prefix`, on the CPU.

        Raises:
            StoreError: the file cannot be read.
        """
        if all(file != known.file for known in self._files):
            raise StoreError(
                f"{self._folder}: expected one of its {len(self._files)} files of tensors, found "
                f"the name {printable(file, 80)!r}."
            )
        path = self._folder / file
        try:
            with safe_open(path, framework="pt") as opened:
                # Copies: a tensor that points into the mapped file would keep all of it mapped.
                return {
                    name: opened.get_tensor(name).clone()
                    for name in opened.keys()  # noqa: SIM118 - no dict
                    if name.startswith(prefix)
                }
        except (OSError, SafetensorError) as error:
            raise StoreError(
                f"{path}: expected a safetensors file, found {error}; delete the artefact's "
                "folder and run again."
            ) from error
