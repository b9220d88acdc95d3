"""What a backend must keep to."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from tfq_bench.pipeline.agreement import Agreement
from tfq_bench.quant.lower.simulate import SIMULATED_KERNEL, simulate
from tfq_bench.quant.lower.watched import watched_layers
from tfq_bench.testing.contracts.predictions import IMAGES, predictions
from tfq_bench.testing.fingerprint import Fingerprint
from tfq_bench.testing.inputs import tiny_state
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import Scheme

if TYPE_CHECKING:
    from tfq_bench.protocols import Backend
    from tfq_bench.types.networks import LoadedModel

__all__ = ["BackendContract"]


class BackendContract:
    """What a `Backend` must keep to.

    Attributes:
        schemes: bits to test. device: where networks run.
    """

    schemes: ClassVar[tuple[Scheme, ...]] = (Scheme(wbits=8, abits=8),)
    device: ClassVar[str] = "cpu"

    def make(self) -> Backend:
        """The backend with the options to test; to be implemented."""
        raise NotImplementedError

    def load(self) -> LoadedModel:
        """The model to lower, loaded anew."""
        return load_tiny(device=self.device)

    def test_this_machine_is_accepted(self) -> None:
        """`check` raises nothing where the contract runs."""
        self.make().check(device=self.device)

    def test_predictions_agree_with_the_simulation(self) -> None:
        """As a run checks it: at every step, and each row of a batch."""
        loaded = self.load()
        for scheme in self.schemes:
            state = tiny_state(loaded, scheme)
            lowered = self.make().lower(loaded, state)
            calls = Agreement(loaded, state, lowered, simulate(loaded, state))
            calls.every_step(together=IMAGES)
            calls.batch(IMAGES)

    def test_every_layer_computes_the_integers(self) -> None:
        """What a run checks before it samples, at every step of the sampler."""
        loaded = self.load()
        for scheme in self.schemes:
            state = tiny_state(loaded, scheme)
            lowered = self.make().lower(loaded, state)
            with watched_layers(loaded, state, lowered) as watch:
                predictions(loaded, lowered)
            assert list(state.layers) == sorted(watch.checks, key=list(state.layers).index)

    def test_every_layer_says_how_it_runs(self) -> None:
        """One entry per quantized layer; what is simulated is no kernel and has a reason."""
        loaded = self.load()
        for scheme in self.schemes:
            state = tiny_state(loaded, scheme)
            lowered = self.make().lower(loaded, state)
            uses = lowered.kernels
            assert list(state.layers) == [use.layer for use in uses]
            for use in uses:
                layer = state.layers[use.layer]
                assert loaded.topology.layer(use.layer).macs == use.macs, use.layer
                if use.fallback is None:
                    assert lowered.execution != "lowered" or use.kernel != SIMULATED_KERNEL, (
                        use.layer
                    )
                    assert (layer.wbits, layer.abits) == (use.wbits, use.abits), use.layer

    def test_kernels_that_are_listed_really_run(self) -> None:
        """After one prediction exactly the listed kernels were executed."""
        loaded = self.load()
        for scheme in self.schemes:
            lowered = self.make().lower(loaded, tiny_state(loaded, scheme))
            predictions(loaded, lowered)
            ran = {kernel for kernel, count in lowered.executed.items() if count > 0}
            assert {use.kernel for use in lowered.kernels} == ran

    def test_model_and_state_are_left_alone(self) -> None:
        """Lowering and running change neither the network nor the state."""
        loaded = self.load()
        for scheme in self.schemes:
            state = tiny_state(loaded, scheme)
            expected = predictions(loaded, simulate(loaded, state))
            before = Fingerprint(loaded.network)
            predictions(loaded, self.make().lower(loaded, state))
            before.check(loaded.network)
            assert torch.equal(expected, predictions(loaded, simulate(loaded, state)))
