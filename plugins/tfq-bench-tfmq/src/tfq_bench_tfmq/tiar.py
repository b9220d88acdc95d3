"""Temporal Information Aware Reconstruction: rounding of the temporal block's weights.

    L = sum_i mean_t || g_i(h(t)) - g^_i(h^(t)) ||^2 + lambda * sum(1 - |2h(alpha) - 1|^beta)

(arXiv:2311.16503, TIAR.) Activations stay float. The batch is the whole table of sampler steps, so
no image is needed and nothing is drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from tfq_bench.quant import BETA_START, SoftRounding, anneal, optimize, optimizer_for

if TYPE_CHECKING:
    from tfq_bench.api import Progress
    from tfq_bench.quant import FakeQuantNetwork
    from tfq_bench_tfmq.block import TemporalBlock

__all__ = ["TiarReport", "learn_rounding"]

WEIGHT = 0.01
"""lambda of the rounding regulariser; BRECQ's and the released code's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TiarReport:
    """What was gained: L without its regulariser, for nearest rounding and for what was kept.

    Args:
        after: at most `before`, because nearest rounding is kept where learning did not help.
    """

    before: float
    after: float


def learn_rounding(
    block: TemporalBlock,
    fake_quant: FakeQuantNetwork,
    *,
    iterations: int,
    lr: float,
    progress: Progress,
    inputs: Tensor | None = None,
) -> TiarReport:
    """Learns all weights of the block jointly; the network then has the learned codes.

    Layers that the plan leaves float keep their weights, and are in the loss.

    Args:
        iterations: of Adam on the rounding variables; 0 leaves nearest rounding.
        lr: its learning rate.
        inputs: what the quantized layers read in place of the block's table, same shape, where
            something before them is quantized as well.
    """
    read = block.table if inputs is None else inputs
    stages = _stages(block, fake_quant)
    with torch.no_grad():
        targets = _outputs(block, stages, lambda stage: stage.weight, block.table)
        before = _loss(_outputs(block, stages, _Stage.hard, read), targets).item()
    variables = [stage.rounding.alpha for stage in stages if stage.rounding is not None]
    if not variables or iterations == 0:
        return TiarReport(before=before, after=before)
    device = block.table.device
    optimizer = optimizer_for(variables, lr, device)
    # Tensors, so that a captured step reads new values: beta, and lambda, which is 0 at first.
    beta, weight = torch.tensor(BETA_START, device=device), torch.zeros((), device=device)

    def before_step(number: int) -> None:
        value = anneal(number, iterations)
        if value is not None:
            beta.fill_(value)
            weight.fill_(WEIGHT)

    @torch.enable_grad()
    def step() -> None:
        optimizer.zero_grad()
        loss = _loss(_outputs(block, stages, _Stage.soft, read), targets)
        for stage in stages:
            if stage.rounding is not None:
                loss = loss + weight * stage.rounding.regulariser(beta)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    optimize(
        step,
        iterations,
        before=before_step,
        device=device,
        tell=lambda share: progress(share, "temporal block: rounding"),
    )
    with torch.no_grad():
        after = _loss(_outputs(block, stages, _Stage.hard, read), targets).item()
        if after >= before:
            return TiarReport(before=before, after=before)
        for stage in stages:
            stage.keep(fake_quant)
    return TiarReport(before=before, after=after)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Stage:
    """Layers that read one input, as one layer: their output channels one after another.

    Scales are per output channel, so this is the same computation in fewer and larger products.
    """

    names: tuple[str, ...]
    weight: Tensor
    bias: Tensor | None
    rounding: SoftRounding | None

    def hard(self) -> Tensor:
        return self.weight if self.rounding is None else self.rounding.hard()

    def soft(self) -> Tensor:
        return self.weight if self.rounding is None else self.rounding.soft()

    def keep(self, fake_quant: FakeQuantNetwork) -> None:
        """Writes the learned codes into the fake-quantized layers."""
        if self.rounding is None:
            return
        parts = [fake_quant.layer(name).pieces[0] for name in self.names]
        pieces = torch.split(self.rounding.codes(), [len(part.codes) for part in parts])
        for part, codes in zip(parts, pieces, strict=True):
            part.codes.copy_(codes)


def _stages(block: TemporalBlock, fake_quant: FakeQuantNetwork) -> list[_Stage]:
    """Layers together that read one input through one activation, at one width."""
    kinds: dict[tuple[str | None, str, int | None, bool, bool], list[str]] = {}
    for name in block.layers:
        bits = fake_quant.layer(name).bits.wbits if name in fake_quant.layers else None
        kind = (
            block.reads[name],
            block.before[name],
            bits,
            block.biases[name] is None,
            name in block.outputs,
        )
        kinds.setdefault(kind, []).append(name)
    return [_stage(block, fake_quant, names) for names in kinds.values()]


def _stage(block: TemporalBlock, fake_quant: FakeQuantNetwork, names: Sequence[str]) -> _Stage:
    weight = torch.cat([block.weights[name] for name in names])
    biases = [bias for name in names if (bias := block.biases[name]) is not None]
    rounding = None
    if names[0] in fake_quant.layers:
        parts = [fake_quant.layer(name).pieces[0] for name in names]
        rounding = SoftRounding(
            weight,
            torch.cat([part.scale for part in parts]),
            torch.cat([part.zero_point for part in parts]),
            parts[0].bits,
        )
    return _Stage(
        names=tuple(names),
        weight=weight,
        bias=torch.cat(biases) if biases else None,
        rounding=rounding,
    )


def _outputs(
    block: TemporalBlock,
    stages: Sequence[_Stage],
    weight: Callable[[_Stage], Tensor],
    table: Tensor,
) -> list[Tensor]:
    """Features `[T, sum of C_i]` of each group of layers that give some."""
    values: dict[str, Tensor] = {}
    outputs = []
    for stage in stages:
        first = stage.names[0]
        source = block.reads[first]
        x = block.activate(first, table if source is None else values[source])
        y = F.linear(x, weight(stage), stage.bias)
        if first in block.outputs:
            outputs.append(y)
        widths = [len(block.weights[name]) for name in stage.names]
        values.update(zip(stage.names, torch.split(y, widths, dim=1), strict=True))
    return outputs


def _loss(outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    terms = [
        (output - target).square().sum(dim=1).mean()
        for output, target in zip(outputs, targets, strict=True)
    ]
    return torch.stack(terms).sum()
