"""The only code that downloads, called by `tfq-bench assets fetch` and by nothing else.

`torch.hub.download_url_to_file` promises less: it follows redirects to addresses that are not
encrypted, takes a connection that ended early for the whole file, bounds neither size nor silence,
speaks to the terminal itself, and needs torch.
"""

from __future__ import annotations

import errno
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import IO

from tfq_bench.assets.declared import (
    SIZE_TOLERANCE,
    Asset,
    asset_fault,
    assets_folder,
    file_fault,
    sha256_of,
)
from tfq_bench.errors import AssetError, locating
from tfq_bench.foreign.text import printable

__all__ = ["fetch"]

CHUNK = 1 << 20
TIMEOUT_S = 60.0
"""Without any byte."""

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes of the whole, None when unknown."""


def fetch(asset: Asset, *, look: Callable[[], Asset], progress: Progress) -> Asset:
    """The asset once it is on this machine, whole and of the expected digest.

    Args:
        asset: with a path when something of it is there and damaged.
        look: describes the same asset again, with what has been fetched since.

    Raises:
        AssetError: it cannot be fetched, or is not what was expected; then nothing has changed but
            the hub's cache.
        OSError: the disk is full or may not be written.
    """
    with locating(component=f"asset '{asset.name}'"):
        return _fetch(asset, look, progress)


def _fetch(asset: Asset, look: Callable[[], Asset], progress: Progress) -> Asset:
    if asset.kind == "file":
        _fetch_file(asset, progress)
        found = look()
    else:
        found = _fetch_snapshot(asset, look)
    if found.path is None:
        raise AssetError(
            f"asset '{asset.name}': {asset.source} was fetched, but not all that is needed is in "
            f"it. Look at the repository, or provide the files in another way. {asset.advice}"
        )
    fault = asset_fault(found)
    if fault:
        raise AssetError(
            f"asset '{asset.name}': {found.path} is not what was expected even after it was "
            f"fetched: {fault}. Tell the plugin's authors. {asset.advice}",
            file=found.path,
            expected=asset.sha256 or None,
            found=fault,
        )
    return found


def _fetch_file(asset: Asset, progress: Progress) -> None:
    fault = _address_fault(asset.source, asset)
    if fault:
        raise AssetError(f"asset '{asset.name}': {fault}")
    target = assets_folder() / asset.name
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{asset.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            _download(asset, file, progress)
        fault = file_fault(part, asset)
        if fault:
            raise AssetError(
                f"asset '{asset.name}': {asset.source} gave another file: {fault}. It was not "
                "kept. Repeat the command; if the same happens, tell the plugin's authors.",
                file=asset.source,
                expected=asset.sha256 or None,
                found=sha256_of(part),
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _address_fault(address: str, asset: Asset) -> str:
    """Why nothing is fetched from there: whoever sits on the way could send another file."""
    scheme = urllib.parse.urlsplit(address).scheme.lower()
    if scheme == "https" or (scheme == "http" and len(asset.sha256) == 64):
        return ""
    if scheme == "http":
        return (
            f"{address} is not encrypted, and no full SHA-256 says what should come from there. "
            "Fetch it yourself in a way that you trust, or ask the plugin's authors for an "
            "address that starts with https://, or for the digest."
        )
    return f"expected an address that starts with https://, found '{address}'."


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to addresses that are as safe as the first."""

    def __init__(self, asset: Asset) -> None:
        self._asset = asset

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The request that follows, unless its address would not have been accepted."""
        fault = _address_fault(newurl, self._asset)
        if fault:
            raise AssetError(
                f"asset '{self._asset.name}': {self._asset.source} leads elsewhere: "
                f"{printable(fault)}"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(asset: Asset, file: IO[bytes], progress: Progress) -> None:
    request = urllib.request.Request(asset.source, headers={"User-Agent": "tfq-bench"})
    done, total = 0, None
    try:
        opener = urllib.request.build_opener(_Redirects(asset))
        with opener.open(request, timeout=TIMEOUT_S) as response:
            total = response.length
            while chunk := response.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                if asset.size is not None and done > asset.size * (1 + SIZE_TOLERANCE):
                    raise _failed(asset, f"more than the expected {asset.size} bytes came")
                progress(done, total)
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) in _DISK:
            raise
        raise _failed(asset, error) from error
    if total is not None and done != total:  # reading in pieces does not notice
        raise _failed(asset, f"the connection ended after {done} of {total} bytes")


def _fetch_snapshot(asset: Asset, look: Callable[[], Asset]) -> Asset:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise AssetError(
            f"asset '{asset.name}' comes from the Hugging Face hub, and huggingface_hub is not "
            "installed. 'pip install huggingface_hub', then repeat the command."
        ) from None
    found = asset
    for patterns in asset.patterns or (None,):
        try:
            snapshot_download(
                asset.source,
                revision=asset.revision or None,
                allow_patterns=None if patterns is None else list(patterns),
                # What lies in the hub's cache is taken as it is, damaged or not.
                force_download=asset.path is not None,
            )
        except Exception as error:  # the hub's client raises those of its HTTP library too
            if getattr(error, "errno", None) in _DISK:
                raise
            raise _failed(
                asset,
                error,
                " Where the repository is gated, accept its licence on the hub and log in with "
                "'hf auth login'.",
            ) from error
        found = look()
        if found.path is not None and not asset_fault(found):
            break
    return found


def _failed(asset: Asset, cause: object, more: str = "") -> AssetError:
    if isinstance(cause, urllib.error.HTTPError):
        cause = f"the server answered {cause.code} {cause.reason}"
    elif isinstance(cause, urllib.error.URLError):
        cause = cause.reason
    text = printable(cause, 500) or type(cause).__name__
    advice = f" {asset.advice}" if asset.advice else ""
    return AssetError(
        f"asset '{asset.name}': cannot fetch {asset.source}: {text.rstrip('.')}. Repeat the "
        f"command when the network allows it.{more}{advice}"
    )
