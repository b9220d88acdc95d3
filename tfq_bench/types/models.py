"""What a distribution of models implements: `Model` with its `Sampler`, and what it may add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tfq_bench.types.calibration import Guidance
    from tfq_bench.types.topology import Topology

__all__ = ["Model", "Prompted", "Remarks", "Sampler"]


class Sampler(Protocol):
    """A sampler with a fixed list of timesteps. Pure: it keeps nothing and draws nothing.

    What it must remember between steps (earlier predictions of a multistep method) is part of the
    state that it is given and returns: one tensor `[B, k*C, H, W]` whose meaning is its own. Most
    have x itself as state and inherit `PlainState`.
    """

    @property
    def timesteps(self) -> tuple[int | float, ...]:
        """What is passed to the network, in execution order (noisiest first)."""

    @property
    def definition(self) -> Mapping[str, Any]:
        """JSON-able description; part of every metric's definition."""

    def initial(self, noise: Tensor) -> Tensor:
        """The state at step 0 from standard normal noise `[B, C, H, W]`."""

    def network_input(self, state: Tensor, index: int) -> Tensor:
        """What the network reads at step `index`: `[B, C, H, W]`."""

    def step(self, state: Tensor, prediction: Tensor, index: int, noise: Tensor | None) -> Tensor:
        """The next state from the network's prediction `[B, C, H, W]` at `index`."""

    def final(self, state: Tensor) -> Tensor:
        """The sample x `[B, C, H, W]` that a state holds; what is decoded after the last step."""

    @property
    def stochastic(self) -> bool:
        """Whether `step` wants noise `[B, C, H, W]`."""


class Model(Protocol):
    """A diffusion model: a network, and what is around it."""

    @property
    def digest(self) -> str:
        """Content digest of weights and configuration; part of every stage key."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of the state the sampler works on."""

    @property
    def dtype(self) -> torch.dtype:
        """What its full-precision network computes in; the reference that others are held to."""

    def load(self, *, device: str, dtype: torch.dtype) -> nn.Module:
        """A fresh network in eval mode, without gradients."""

    def predict(
        self, network: nn.Module, x: Tensor, timestep: Tensor, condition: Mapping[str, Tensor]
    ) -> Tensor:
        """The network's prediction for x `[B, C, H, W]` and timestep `[B]`, one row a sample.

        Float32 in, float32 out, whatever the network computes in. Without guidance, which the
        harness applies, see `guidance`.
        """

    def topology(self, network: nn.Module) -> Topology:
        """Layers, blocks and temporal modules in execution order."""

    def sampler(self, name: str, steps: int) -> Sampler:
        """The sampler called `name` with `steps` steps; SuiteError when it has none such."""

    def conditions(self, images: Sequence[int], *, device: str) -> Mapping[str, Tensor]:
        """Conditioning `[B, ...]` of the images with these indices; empty when unconditional."""

    def guidance(self, *, device: str) -> Guidance | None:
        """Classifier-free guidance of its sampling, None without."""

    def decode(self, latents: Tensor) -> Tensor:
        """uint8 images `[B, H, W, 3]` on the CPU from final latents."""

    def reference(self, extractor: str) -> Path | None:
        """File with reference statistics for a feature extractor, None when there is none."""


@runtime_checkable
class Prompted(Protocol):
    """What a `Model` may have in addition, for metrics that compare images with text."""

    def prompts(self, images: Sequence[int]) -> Sequence[str] | None:
        """What the images with these indices are to show, None when they have no text."""


@runtime_checkable
class Remarks(Protocol):
    """What a `Model` may have in addition: how it was read, for one line of `plan`."""

    def remarks(self, sampler: str) -> Sequence[str]:
        """Short phrases, such as which keys of its files change nothing when `sampler` is used."""
