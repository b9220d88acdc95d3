"""Which modules are the units that a network repeats: residual, attention, transformer blocks."""

from __future__ import annotations

from torch import nn

from tfq_bench.quant import WeightedLayer

__all__ = ["find_units"]


def find_units(network: nn.Module) -> tuple[str, ...]:
    """Names of the units: the innermost elements of module lists that hold several layers.

    So a stage, which is in a list but holds lists of residual blocks, is no unit, and neither is
    a part of a residual block. Modules of the same types that stand in no list are units as well.
    """
    modules = dict(network.named_modules())
    several = {
        name
        for name, module in modules.items()
        if sum(isinstance(part, WeightedLayer) for part in module.modules()) > 1
    }
    listed = {
        name
        for name in several
        if "." in name and isinstance(modules[name.rpartition(".")[0]], nn.ModuleList)
    }
    innermost = {name for name in listed if not _holds_one_of(name, listed)}
    types = tuple({type(modules[name]) for name in innermost})
    alike = {
        name
        for name in several - innermost
        if isinstance(modules[name], types)
        and not _holds_one_of(name, innermost)
        and not any(name.startswith(f"{unit}.") for unit in innermost)
    }
    return tuple(name for name in modules if name in innermost | alike)


def _holds_one_of(name: str, names: set[str]) -> bool:
    return any(other.startswith(f"{name}.") for other in names)
