"""What a quantizer must keep to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.quant.state.quantized_state import QuantizedState
from tfq_bench.quant.state.storage import load_state, save_state
from tfq_bench.seeds import generator
from tfq_bench.testing.contracts.predictions import IMAGES, predictions
from tfq_bench.testing.fingerprint import Fingerprint
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import CalibrationData, Scheme

if TYPE_CHECKING:
    from tfq_bench.protocols import Quantizer
    from tfq_bench.types.networks import LoadedModel

__all__ = ["QuantizerContract"]


class QuantizerContract:
    """What a `Quantizer` must keep to.

    Attributes:
        schemes: bits and policies to test.
    """

    schemes: ClassVar[tuple[Scheme, ...]] = (Scheme(wbits=8, abits=8),)

    def make(self, scheme: Scheme) -> Quantizer:
        """The quantizer for a scheme, with the options to test; to be implemented."""
        raise NotImplementedError

    def load(self) -> LoadedModel:
        """The model to quantize, loaded anew."""
        return load_tiny()

    def test_calibration_needs_exist(self) -> None:
        """It asks for steps of the sampler and for images it was given, each pair once."""
        loaded = self.load()
        for scheme in self.schemes:
            samples = self.make(scheme).calibration_needs(loaded, images=IMAGES).samples
            assert len(samples) == len(set(samples)), "a pair is asked for twice"
            steps = len(loaded.sampler.timesteps)
            assert all(0 <= s < steps and 0 <= i < IMAGES for s, i in samples)

    def test_same_generator_gives_the_same_bytes(self, tmp_path: Path) -> None:
        """Nothing but model, data and generator decides the state."""
        for number, scheme in enumerate(self.schemes):
            folders = [tmp_path / f"{number}-{name}" for name in ("one", "other")]
            for folder in folders:
                folder.mkdir()
                save_state(self._state(self.load(), scheme), folder)
            for file in sorted(folders[0].iterdir()):
                assert file.read_bytes() == (folders[1] / file.name).read_bytes(), file.name

    def test_model_and_global_generator_are_left_alone(self) -> None:
        """The network keeps weights, modules and hooks; torch's global generator stands still."""
        loaded = self.load()
        for scheme in self.schemes:
            before = Fingerprint(loaded.network)
            data = self._data(loaded, scheme)
            inputs = data.x.clone()
            random = torch.random.get_rng_state()
            self._quantize(loaded, scheme, data)
            before.check(loaded.network)
            assert torch.equal(inputs, data.x), "the calibration data were changed"
            assert torch.equal(random, torch.random.get_rng_state()), "global generator was used"

    def test_every_layer_is_quantized_or_exempt_with_a_reason(self) -> None:
        """No layer that is computed is forgotten; quantized layers stand in execution order."""
        loaded = self.load()
        for scheme in self.schemes:
            state = self._state(loaded, scheme)
            order = [layer.name for layer in loaded.topology.layers]
            dropped = state.dropped(loaded.topology)
            assert sorted(order) == sorted([*state.layers, *state.exempt, *dropped])
            assert [name for name in order if name in state.layers] == list(state.layers)
            assert all(state.exempt.values()), "a layer is exempt without a reason"
            assert (loaded.model.digest, scheme) == (state.model, state.scheme)

    def test_state_survives_the_disk(self, tmp_path: Path) -> None:
        """A saved and loaded state predicts the same values, and corrects by the same."""
        loaded = self.load()
        for number, scheme in enumerate(self.schemes):
            folder = tmp_path / str(number)
            folder.mkdir()
            state = self._state(loaded, scheme)
            save_state(state, folder)
            again = load_state(folder)
            expected = predictions(loaded, simulate(loaded, state))
            found = predictions(loaded, simulate(loaded, again))
            assert torch.equal(expected, found), "the loaded state predicts other values"
            assert (state.correction is None) == (again.correction is None)
            for name in ("slope", "bias", "variance") if state.correction is not None else ():
                one, other = getattr(state.correction, name), getattr(again.correction, name)
                assert torch.equal(one, other), f"the loaded state corrects by another {name}"

    def _data(self, loaded: LoadedModel, scheme: Scheme) -> CalibrationData:
        needs = self.make(scheme).calibration_needs(loaded, images=IMAGES)
        return capture(loaded, needs, seed=1, batch=IMAGES, progress=_ignore)

    def _quantize(
        self, loaded: LoadedModel, scheme: Scheme, data: CalibrationData
    ) -> QuantizedState:
        return self.make(scheme).quantize(
            loaded, data, generator=generator(0, "contract"), progress=_ignore
        )

    def _state(self, loaded: LoadedModel, scheme: Scheme) -> QuantizedState:
        return self._quantize(loaded, scheme, self._data(loaded, scheme))


def _ignore(fraction: float, text: str) -> None:
    """Progress that nobody looks at."""
