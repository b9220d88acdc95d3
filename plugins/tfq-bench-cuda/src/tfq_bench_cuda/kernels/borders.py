"""What a convolution's border sees: geometry, border classes and their sums of weights.

A kernel pads with code 0, because the copy engine of the GPU fills what lies outside of an image
with zeros. A zero point is therefore taken off after the sum: with codes `c`, zero point `z` and
weights `w`,

    sum_in (c - z) w = sum_all c w - z * sum_in w,

`in` being the taps of the filter that lie inside of the image. Only a few sets of such taps occur:
for a 3x3 filter padded by one they are nine, four corners, four edges and the inside. They are
called border classes here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Geometry", "border_sums", "positions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How a convolution walks over its input; pairs are (height, width).

    Args:
        beyond: rows and columns of zeros after the last, besides `padding`.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    beyond: tuple[int, int] = (0, 0)

    @property
    def pointwise(self) -> bool:
        """Whether each output sees one pixel, its own: a matrix product."""
        return self == Geometry(kernel=(1, 1), stride=(1, 1), padding=(0, 0), dilation=(1, 1))

    @property
    def centred(self) -> bool:
        """Square in all, and padded so that a stride of 1 keeps the size.

        TileLang's im2col copy takes these alone: it lets the filter reach as far beyond the last
        pixel as before the first, whatever the padding is.
        """
        pairs = (self.kernel, self.stride, self.padding, self.dilation)
        square = all(first == second for first, second in pairs) and self.beyond == (0, 0)
        return square and 2 * self.padding[0] == self.dilation[0] * (self.kernel[0] - 1)

    def output(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the output for those of the input."""
        height, width = (
            (size[axis] + self._added(axis) - self._reach(axis)) // self.stride[axis] + 1
            for axis in (0, 1)
        )
        return height, width

    def taps(self, size: tuple[int, int], axis: int) -> tuple[Tensor, Tensor]:
        """First tap's coordinate int64 `[out]`, and bool `[out, kernel]`: which taps are inside."""
        first = torch.arange(self.output(size)[axis]) * self.stride[axis] - self.padding[axis]
        place = first[:, None] + torch.arange(self.kernel[axis]) * self.dilation[axis]
        return first, (place >= 0) & (place < size[axis])

    def _added(self, axis: int) -> int:
        return 2 * self.padding[axis] + self.beyond[axis]

    def _reach(self, axis: int) -> int:
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1


def positions(geometry: Geometry, size: tuple[int, int]) -> Tensor:
    """int32 `[out_h * out_w, 4]`: row and column of the first tap, border class, 0.

    The class counts rows of taps first: `row class * number of column classes + column class`, in
    the order of `border_sums`. The last column fills up 16 bytes.
    """
    top, rows = geometry.taps(size, 0)
    left, columns = geometry.taps(size, 1)
    row_class, column_class = _classes(rows), _classes(columns)
    table = torch.zeros(len(top), len(left), 4, dtype=torch.int32)
    table[:, :, 0] = top[:, None]
    table[:, :, 1] = left
    table[:, :, 2] = row_class[:, None] * (int(column_class.max()) + 1) + column_class
    return table.reshape(-1, 4)


def border_sums(weight: Tensor, geometry: Geometry, size: tuple[int, int]) -> Tensor:
    """int32 `[classes, C_out]` on the CPU: sums of the weights that lie inside of the image.

    Args:
        weight: integers `[C_out, C_in, kh, kw]`; channels are added where they lie.
        size: height and width of the input.
    """
    taps = weight.sum(1, dtype=torch.int64).cpu()
    masks = []
    for axis in (0, 1):
        _, inside = geometry.taps(size, axis)
        classes = _classes(inside)
        first = [int((classes == number).nonzero()[0]) for number in range(int(classes.max()) + 1)]
        masks.append(inside[first].to(torch.int64))
    sums = torch.einsum("ri,cj,oij->rco", masks[0], masks[1], taps)
    return sums.reshape(-1, len(weight)).to(torch.int32).contiguous()


def _classes(inside: Tensor) -> Tensor:
    """int64 `[out]`: equal numbers for equal sets of taps, numbered from 0."""
    _, inverse = torch.unique(inside, dim=0, return_inverse=True)
    return inverse
