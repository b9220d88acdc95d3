"""The contracts hold for the host's own plugins, and fail for plugins that break them."""

import dataclasses
import math

import pytest
import torch

from tfq_bench.errors import LoweringError
from tfq_bench.quant.lower.simulate import SimulateBackend
from tfq_bench.quant.rtn import RoundToNearest
from tfq_bench.testing.contracts import (
    BackendContract,
    MetricContract,
    ModelContract,
    QuantizerContract,
)
from tfq_bench.testing.tiny import TinyModel
from tfq_bench.types import Interval, MetricDefinition, MetricValue, Scheme

SCHEMES = (Scheme(wbits=8, abits=8), Scheme(wbits=4, abits=8), Scheme(wbits=4, abits=32))


class Brightness:
    """Mean of all pixels: the smallest metric."""

    def evaluate(self, inputs):
        mean = float(inputs.images.mean())
        interval = Interval(low=mean, high=mean, level=0.95, method="none")
        definition = MetricDefinition(
            name="brightness", unit="", direction="none", summary="Mean pixel."
        )
        count = len(inputs.images)
        return (MetricValue(definition=definition, value=mean, n=count, interval=interval),)


class TestTinyModel(ModelContract):
    """The tiny model keeps the model contract."""

    samplers = ("ddim", "ddim-stochastic")

    def make(self):
        return TinyModel()


class TestRoundToNearest(QuantizerContract):
    """Round to nearest keeps the quantizer contract at every kind of scheme."""

    schemes = SCHEMES

    def make(self, scheme):
        return RoundToNearest(scheme=scheme)


class TestSimulate(BackendContract):
    """The simulation agrees with itself exactly."""

    schemes = SCHEMES

    def make(self):
        return SimulateBackend()


class TestBrightness(MetricContract):
    """A plain metric keeps the metric contract."""

    def make(self):
        return Brightness()


class MutatingQuantizer(RoundToNearest):
    """Changes the network that it was given."""

    def quantize(self, loaded, data, *, generator, progress, checkpoint=None):
        loaded.network.conv_in.weight.add_(1.0)
        return super().quantize(loaded, data, generator=generator, progress=progress)


class RandomQuantizer(RoundToNearest):
    """Draws from the global generator."""

    def quantize(self, loaded, data, *, generator, progress, checkpoint=None):
        state = super().quantize(loaded, data, generator=generator, progress=progress)
        layer = state.layers["conv_in"]
        shifted = dataclasses.replace(layer, bias=layer.bias + torch.rand(1))
        return dataclasses.replace(state, layers={**state.layers, "conv_in": shifted})


class ForgetfulQuantizer(RoundToNearest):
    """Leaves a layer out without saying so."""

    def quantize(self, loaded, data, *, generator, progress, checkpoint=None):
        state = super().quantize(loaded, data, generator=generator, progress=progress)
        layers = {name: layer for name, layer in state.layers.items() if name != "conv_in"}
        return dataclasses.replace(state, layers=layers)


@pytest.mark.parametrize(
    ("quantizer", "test"),
    [
        (MutatingQuantizer, "test_model_and_global_generator_are_left_alone"),
        (RandomQuantizer, "test_model_and_global_generator_are_left_alone"),
        (ForgetfulQuantizer, "test_every_layer_is_quantized_or_exempt_with_a_reason"),
    ],
)
def test_quantizer_that_breaks_the_contract_fails(quantizer, test):
    """Mutation, hidden randomness and forgotten layers are found."""

    class Contract(QuantizerContract):
        def make(self, scheme):
            return quantizer(scheme=scheme)

    with pytest.raises(AssertionError):
        getattr(Contract(), test)()


def test_random_state_fails_the_contract(tmp_path):
    """Two states from one generator must have equal bytes."""

    class Contract(QuantizerContract):
        def make(self, scheme):
            return RandomQuantizer(scheme=scheme)

    with pytest.raises(AssertionError, match=r"tensors\.safetensors|manifest\.json"):
        Contract().test_same_generator_gives_the_same_bytes(tmp_path)


class SilentFallback(SimulateBackend):
    """Calls a float network a kernel."""

    def lower(self, loaded, state):
        return dataclasses.replace(super().lower(loaded, state), execution="lowered")


class WrongBackend(SimulateBackend):
    """Computes something else than the state says."""

    def lower(self, loaded, state):
        lowered = super().lower(loaded, state)
        lowered.network.conv_out.weight_0.mul_(1.1)
        return lowered


class WrongNorm(SimulateBackend):
    """Every layer is right, what stands between them is not."""

    def lower(self, loaded, state):
        lowered = super().lower(loaded, state)
        lowered.network.norm_out.weight.mul_(1.1)
        return lowered


@pytest.mark.parametrize(
    ("backend", "test", "reason"),
    [
        (SilentFallback, "test_every_layer_says_how_it_runs", "time_mlp.0"),
        (WrongBackend, "test_every_layer_computes_the_integers", "'conv_out' does not compute"),
        (WrongBackend, "test_predictions_agree_with_the_simulation", "away from the simulation"),
        (WrongNorm, "test_predictions_agree_with_the_simulation", "away from the simulation"),
    ],
)
def test_backend_that_breaks_the_contract_fails(backend, test, reason):
    """A silent fallback and a wrong number are found, also of what is not quantized."""

    class Contract(BackendContract):
        def make(self):
            return backend()

    with pytest.raises((AssertionError, LoweringError), match=reason):
        getattr(Contract(), test)()


def test_model_with_a_wrong_order_fails():
    """A topology in definition order, not execution order, is found."""

    class Reversed(TinyModel):
        def topology(self, network):
            found = super().topology(network)
            return dataclasses.replace(found, layers=found.layers[::-1])

    class Contract(ModelContract):
        def make(self):
            return Reversed()

    with pytest.raises(AssertionError, match="order is not the network's"):
        Contract().test_layers_are_listed_in_execution_order()


def test_infinite_metric_fails():
    """A value that cannot be compared is found."""

    class Infinite(Brightness):
        def evaluate(self, inputs):
            (value,) = super().evaluate(inputs)
            return (dataclasses.replace(value, value=math.inf),)

    class Contract(MetricContract):
        def make(self):
            return Infinite()

    with pytest.raises(AssertionError, match="'brightness' is inf"):
        Contract().test_values_are_well_formed()
