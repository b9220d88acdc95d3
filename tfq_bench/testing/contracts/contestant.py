"""What a contestant must keep to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from tfq_bench.pipeline.calibrate import capture
from tfq_bench.pipeline.external import external_facts, quantize_externally
from tfq_bench.testing.contracts.predictions import IMAGES, predictions
from tfq_bench.testing.fingerprint import Fingerprint
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import Scheme

if TYPE_CHECKING:
    from tfq_bench.protocols import Contestant
    from tfq_bench.types.networks import LoadedModel, Lowered

__all__ = ["ContestantContract"]


class ContestantContract:
    """What a `Contestant` must keep to.

    Attributes:
        schemes: bits to test. device: where networks run.
    """

    schemes: ClassVar[tuple[Scheme, ...]] = (Scheme(wbits=8, abits=8, policy="own"),)
    device: ClassVar[str] = "cpu"

    def make(self, scheme: Scheme) -> Contestant:
        """The contestant for a scheme, with the options to test; to be implemented."""
        raise NotImplementedError

    def load(self) -> LoadedModel:
        """The model to quantize, loaded anew."""
        return load_tiny(device=self.device)

    def test_what_runs_has_versions(self) -> None:
        """Where `check` raises nothing, every tool is named with its version."""
        for scheme in self.schemes:
            contestant = self.make(scheme)
            contestant.check(device=self.device)
            assert contestant.packages
            assert all(one.count("==") == 1 for one in contestant.packages)

    def test_its_policy_is_its_own(self) -> None:
        """It decides which layers it quantizes, so no common policy is its."""
        assert all(scheme.policy.startswith("own") for scheme in self.schemes)

    def test_the_product_is_enough(self, tmp_path: Path) -> None:
        """Another process, with another object and the model loaded anew, predicts the same."""
        for number, scheme in enumerate(self.schemes):
            folder = tmp_path / str(number)
            loaded = self.load()
            self._quantize(loaded, scheme, folder)
            expected = predictions(loaded, self.make(scheme).load(loaded, folder))
            again = self.load()
            found = predictions(again, self.make(scheme).load(again, folder))
            assert torch.equal(expected, found), "the product loaded again predicts other values"

    def test_the_same_data_give_the_same_network(self, tmp_path: Path) -> None:
        """Nothing but model, data and generator decides what it predicts."""
        for number, scheme in enumerate(self.schemes):
            found = []
            for name in ("one", "other"):
                loaded, folder = self.load(), tmp_path / f"{number}-{name}"
                self._quantize(loaded, scheme, folder)
                found.append(predictions(loaded, self.make(scheme).load(loaded, folder)))
            assert torch.equal(*found)

    def test_product_holds_no_pickle(self, tmp_path: Path) -> None:
        """What is read from a run folder executes nothing."""
        for number, scheme in enumerate(self.schemes):
            folder = tmp_path / str(number)
            self._quantize(self.load(), scheme, folder)
            for path in (path for path in folder.rglob("*") if path.is_file()):
                head = path.read_bytes()[:4]
                assert not head.startswith((b"\x80\x02", b"\x80\x04", b"\x80\x05", b"PK")), (
                    path.name
                )

    def test_layers_say_how_they_run(self, tmp_path: Path) -> None:
        """What a run checks: the list, the kernels that ran, shapes, and that something differs."""
        for number, scheme in enumerate(self.schemes):
            loaded = self.load()
            lowered = self._lowered(loaded, scheme, tmp_path / str(number))
            assert lowered.execution == "external"
            external_facts(loaded, lowered, batches=(1, IMAGES))
            lowered.executed.clear()
            predictions(loaded, lowered)
            ran = {kernel for kernel, count in lowered.executed.items() if count > 0}
            promised = {use.kernel for use in lowered.kernels if use.fallback is None}
            assert promised <= ran, f"promised and not run: {promised - ran}"

    def test_it_tells_its_settings(self, tmp_path: Path) -> None:
        """`details` is plain JSON with `settings` and `remarks`, sentences for the reader."""
        for number, scheme in enumerate(self.schemes):
            lowered = self._lowered(self.load(), scheme, tmp_path / str(number))
            details = json.loads(json.dumps(dict(lowered.details)))
            assert isinstance(details["settings"], dict)
            assert all(one.endswith(".") for one in details["remarks"])

    def test_model_data_and_global_generator_are_left_alone(self, tmp_path: Path) -> None:
        """The network keeps weights, modules and hooks; torch's global generator stands still."""
        for number, scheme in enumerate(self.schemes):
            loaded = self.load()
            before, random = Fingerprint(loaded.network), torch.random.get_rng_state()
            predictions(loaded, self._lowered(loaded, scheme, tmp_path / str(number)))
            before.check(loaded.network)
            assert torch.equal(random, torch.random.get_rng_state()), "global generator was used"

    def _lowered(self, loaded: LoadedModel, scheme: Scheme, folder: Path) -> Lowered:
        self._quantize(loaded, scheme, folder)
        return self.make(scheme).load(loaded, folder)

    def _quantize(self, loaded: LoadedModel, scheme: Scheme, folder: Path) -> None:
        contestant = self.make(scheme)
        needs = contestant.calibration_needs(loaded, images=IMAGES)
        data = capture(loaded, needs, seed=1, batch=IMAGES, progress=_ignore)
        given = data.x.clone()
        quantize_externally(contestant, loaded, data, seed=0, progress=_ignore, folder=folder)
        assert torch.equal(given, data.x), "the calibration data were changed"


def _ignore(fraction: float, text: str) -> None:
    """Progress that nobody looks at."""
