"""Images as a model decodes them, checked before anybody counts them.

Bytes cannot say that they were NaN: a cast makes them black, and black pictures equal each other.
So what `decode` computes on the way is looked at too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tfq_bench.errors import CellError

if TYPE_CHECKING:
    from tfq_bench.types.models import Model

__all__ = ["decoded", "require_finite"]

_KEPT = 16
"""How many pictures in the making are looked at: from the last layer to the last cast."""


def decoded(model: Model, latents: Tensor, images: Sequence[int]) -> Tensor:
    """uint8 `[B, H, W, 3]` on the CPU.

    Args:
        latents: what is decoded, finite, one row for each of `images`.
        images: their indices, for messages.

    Raises:
        CellError: what came back is something else, or was not finite before it became bytes.
    """
    with _Pictures() as seen:
        found = model.decode(latents)
    for picture in seen.held:
        if picture.is_meta:  # a decoder that builds its network while it decodes
            continue
        if len(picture) == len(images):
            require_finite(picture, images, "decoding")
        elif not bool(torch.isfinite(picture).all()):
            raise CellError(_message("decoding", list(images)))
    if not isinstance(found, Tensor):
        raise CellError(f"the model's `decode` is expected a tensor, found {type(found).__name__}.")
    expected = (len(images), 3)
    shape = tuple(found.shape)
    if (
        found.dtype != torch.uint8
        or found.dim() != 4
        or (shape[0], shape[-1]) != expected
        or 0 in shape
    ):
        raise CellError(
            f"the model's `decode` is expected uint8 [{len(images)}, H, W, 3], found {found.dtype} "
            f"{list(shape)}."
        )
    if found.device.type != "cpu":
        raise CellError(
            f"the model's `decode` is expected a tensor on the CPU, found it on '{found.device}'."
        )
    return found


def require_finite(values: Tensor, images: Sequence[int], where: str) -> None:
    """Nothing, when `values` `[B, ...]` are finite.

    Raises:
        CellError: names the images whose values are not.
    """
    good = torch.isfinite(values).flatten(1).all(dim=1).tolist()
    bad = [image for image, fine in zip(images, good, strict=True) if not fine]
    if bad:
        raise CellError(_message(where, bad))


def _message(where: str, images: list[int]) -> str:
    more = f" and {len(images) - 5} more" if len(images) > 5 else ""
    return (
        f"{where} gave values that are not finite for image"
        f"{'s' if len(images) > 1 else ''} {', '.join(map(str, images[:5]))}{more}."
    )


class _Pictures(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the last float tensors with three channels that were computed inside."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # To keep its compiler away torch would import it, and with it what every installed
        # package registers for it: one damaged package, and nothing runs.
        return False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held: deque[Tensor] = deque(maxlen=_KEPT)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs `func` and keeps what looks like a picture."""
        found = func(*args, **(kwargs or {}))
        if (
            isinstance(found, Tensor)
            and found.is_floating_point()
            and found.dim() in (3, 4)
            and 3 in (found.shape[-1], found.shape[-3])
        ):
            self.held.append(found)
        return found
