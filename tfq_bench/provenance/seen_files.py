"""Files that results depend on: looked at once, and known again when they are edited."""

from __future__ import annotations

from pathlib import Path

from tfq_bench.keys import content_digest, digest, file_digest, files_below

__all__ = ["SeenFiles"]


class SeenFiles:
    """Looks each file up once; make a new one when files may have changed."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[tuple[int, int], str]] = {}
        self._folders: dict[Path, list[Path]] = {}

    def edited(self) -> Path | None:
        """A file that counted and is another by now, None when all are as they were."""
        for path, (stamp, sha256) in self._seen.items():
            try:
                if _stamp(path) != stamp and file_digest(path) != sha256:
                    return path
            except OSError:
                return path
        for folder, files in self._folders.items():
            try:
                if files_below(folder) != files:
                    return folder
            except OSError:
                return folder
        return None

    def sha256(self, path: Path) -> str:
        """SHA-256 of a file, remembered for `edited`."""
        if path not in self._seen:
            self._seen[path] = _stamp(path), file_digest(path)
        return self._seen[path][1]

    def watch(self, path: Path, sha256: str) -> None:
        """Remembers for `edited` a file whose SHA-256 is known."""
        self._seen.setdefault(path, (_stamp(path), sha256))

    def content(self, path: Path) -> str:
        """`content_digest` of a file or folder, remembered for `edited`; OSError as there."""
        if not path.is_dir():
            return self._of_file(path)
        files = self._folders[path] = files_below(path)
        return digest({f.relative_to(path).as_posix(): self._of_file(f) for f in files}, 64)

    def _of_file(self, path: Path) -> str:
        return self.sha256(path) if path.is_file() else content_digest(path)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
