"""Border classes against a convolution of ones, in which every weight that is inside counts."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from tfq_bench_cuda.kernels.borders import Geometry, border_sums, positions

GEOMETRIES = {
    "3x3": ((3, 3), (1, 1), (1, 1), (1, 1)),
    "stride 2": ((3, 3), (2, 2), (1, 1), (1, 1)),
    "unpadded": ((3, 3), (2, 2), (0, 0), (1, 1)),
    "1x1, stride 2": ((1, 1), (2, 2), (0, 0), (1, 1)),
    "5x5": ((5, 5), (1, 1), (2, 2), (1, 1)),
    "dilated": ((3, 3), (1, 1), (2, 2), (2, 2)),
    "not square": ((1, 3), (2, 1), (0, 1), (1, 1)),
    "padded far": ((3, 3), (1, 1), (3, 3), (1, 1)),
    "beyond": ((3, 3), (2, 2), (0, 0), (1, 1), (1, 1)),
}


def geometry(name: str) -> Geometry:
    """The geometry of this name."""
    kernel, stride, padding, dilation, *beyond = GEOMETRIES[name]
    return Geometry(
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        beyond=beyond[0] if beyond else (0, 0),
    )


@pytest.mark.parametrize(
    ("name", "size"),
    [*product(GEOMETRIES, [(7, 9), (5, 5), (8, 3)]), ("3x3", (1, 1)), ("padded far", (1, 1))],
)
def test_sums_are_those_of_the_weights_inside(name, size):
    """At each output pixel: the class's sum is a convolution of an image of ones."""
    walk = geometry(name)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-128, 128, (5, 6, *walk.kernel), generator=generator)
    below, right = walk.beyond
    expected = F.conv2d(
        F.pad(torch.ones(1, 6, *size).double(), (0, right, 0, below)),
        weight.double(),
        None,
        walk.stride,
        walk.padding,
        walk.dilation,
    )
    table = positions(walk, size)
    sums = border_sums(weight, walk, size)
    found = sums[table[:, 2].long()].view(*walk.output(size), 5).permute(2, 0, 1)
    assert torch.equal(expected[0], found.double())


def test_a_padded_3x3_filter_has_nine_classes():
    """Four corners, four edges, the inside; each class occurs."""
    table = positions(geometry("3x3"), (6, 7))
    assert list(range(9)) == sorted(set(table[:, 2].tolist()))


def test_position_is_that_of_the_first_tap():
    """Row and column may lie outside of the image, where there is padding."""
    table = positions(geometry("stride 2"), (6, 6)).view(3, 3, 4)
    assert [[-1, -1], [-1, 3]] == table[0, ::2, :2].tolist()
    assert [3, 1] == table[2, 1, :2].tolist()


def test_centred_is_what_the_copy_engine_takes():
    """Square in all and padded by half of the filter's reach."""
    centred = {name for name in GEOMETRIES if geometry(name).centred}
    assert {"3x3", "stride 2", "1x1, stride 2", "5x5", "dilated"} == centred
