"""What is not understood is said, not guessed; what only looks odd is understood."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tfq_bench.api import QuantizationError
from tfq_bench_diffusers.topology import diffusers_topology


class Plain(nn.Module):
    """No diffusers network: two layers of the timestep, two of the state, one of a condition."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(1, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.text = nn.Linear(3, 4)
        self.enter, self.leave = nn.Linear(4, 4), nn.Linear(4, 4)

    def embed(self, t, text):
        """What is added to the state."""
        return self.second(self.first(t[:, None].float())) + self.text(text)

    def forward(self, x, t, text):
        """A prediction shaped like x."""
        return self.leave(self.enter(x) + self.embed(t, text)[:, None])


def inputs(**other):
    """For one image of five tokens."""
    given = {"x": torch.zeros(1, 5, 4), "t": torch.zeros(1), "text": torch.zeros(1, 3)}
    return {**given, **other}


def roles(network):
    """Role by layer."""
    return {layer.name: layer.role for layer in diffusers_topology(network, inputs()).layers}


def test_network_of_no_known_type_is_understood():
    """Roles come from the flow of data alone."""
    topology = diffusers_topology(Plain(), inputs())
    assert {
        "first": "time-mlp",
        "second": "time-projection",
        "text": "condition",
        "enter": "input",
        "leave": "output",
    } == roles(Plain())
    assert ("second",) == topology.time_features
    assert ["enter", "first", "second", "text", "leave"] == [la.name for la in topology.layers]


def test_layer_between_condition_and_projection_is_no_time_mlp():
    """The time MLP is dropped when the features are tabulated; this layer is still needed."""

    class Deep(Plain):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 4)

        def embed(self, t, text):
            return self.last(self.third(super().embed(t, text)))

    topology = diffusers_topology(Deep(), inputs())
    assert ("second",) == topology.time_features
    assert ("first", "second") == topology.time_mlp
    assert ("third", "last") == topology.time_projections


def test_layer_that_also_reads_a_condition_cannot_be_tabulated():
    """It is called twice per step, and its second output is another."""

    class Sharing(Plain):
        def embed(self, t, text):
            return super().embed(t, text) + self.second(text.sum() + torch.zeros(1, 4))

    topology = diffusers_topology(Sharing(), inputs())
    assert () == topology.time_features
    assert "time-projection" == topology.layer("second").role


def test_time_feature_may_be_read_by_a_layer_that_is_none():
    """A layer with a row per token cannot be tabulated and not be dropped; what it reads can."""

    class Tokens(Plain):
        def embed(self, t, text):
            first = self.first(t[:, None].float())
            tokens = self.third(first[:, None].expand(1, 5, 4)).sum(dim=1)
            return self.second(first) + self.text(text) + tokens

    topology = diffusers_topology(Tokens(), inputs())
    assert ("first", "second") == topology.time_features
    assert "other" == topology.layer("third").role


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_writing_in_place_through_a_view_is_followed(device):
    """A buffer that is filled depends on what filled it, and so do its other views."""

    class Filling(Plain):
        def embed(self, t, text):
            buffer = torch.zeros(1, 2, 4, device=device)
            view = buffer[:, 0]
            buffer[:, 0] = self.second(self.first(t[:, None].float()))
            view += self.text(text)
            return buffer.sum(dim=1)

    topology = diffusers_topology(Filling(), inputs())
    assert ("second",) == topology.time_features
    assert "condition" == topology.layer("text").role


def test_shapes_are_no_dependence():
    """A tensor made in the shape of the state does not depend on the state."""

    class Shaped(Plain):
        def forward(self, x, t, text):
            return super().forward(x, t * torch.ones_like(x[:, 0, 0]), text)

    assert "time-mlp" == roles(Shaped())["first"]


def test_tables_and_constants_are_no_weights():
    """A matrix that is added, and one that is no parameter, stay float."""

    class Tabled(Plain):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(5, 4))
            self.positions = torch.zeros(5, 4)  # no buffer: it does not follow the network
            self.labels = nn.Embedding(3, 4)

        def forward(self, x, t, text):
            return super().forward(x + self.table + self.positions, t, text) + self.labels.weight[0]

    assert "input" == roles(Tabled())["enter"]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_weight_outside_of_layers_is_an_error(device):
    """It would silently stay float; the message names it and what holds it."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 4))

        def forward(self, x):
            return x @ self.weight.T

    class Multiplying(Plain):
        def __init__(self):
            super().__init__()
            self.own = Own()

        def forward(self, x, t, text):
            return super().forward(self.own(x), t, text)

    with pytest.raises(QuantizationError, match=r"'own.weight' of shape \(4, 4\), which a Own"):
        diffusers_topology(Multiplying().to(device), inputs())


def test_other_convolutions_are_an_error():
    """Only Conv2d and Linear have kernels."""

    class Convolving(Plain):
        def __init__(self):
            super().__init__()
            self.mix = nn.Conv1d(5, 5, 1)

        def forward(self, x, t, text):
            return super().forward(self.mix(x), t, text)

    with pytest.raises(QuantizationError, match=r"'mix.weight'.*Conv1d"):
        diffusers_topology(Convolving(), inputs())


def test_layer_that_is_not_called_is_an_error():
    """Exchanging it would change nothing."""

    class Bypassing(Plain):
        def forward(self, x, t, text):
            return F.linear(super().forward(x, t, text), self.third.weight)

    with pytest.raises(QuantizationError, match=r"'third.weight'.*Linear.*to be called"):
        diffusers_topology(Bypassing(), inputs())


def test_course_that_depends_on_values_is_an_error():
    """One run would not show the others."""

    class Branching(Plain):
        def forward(self, x, t, text):
            return super().forward(x if t.item() > 0 else -x, t, text)

    with pytest.raises(QuantizationError, match=r"Branching.*does not depend on values"):
        diffusers_topology(Branching(), inputs())


def test_prediction_without_the_timestep_is_an_error():
    """Then something was not followed, or the network does not denoise."""

    class Timeless(Plain):
        def embed(self, t, text):
            return self.text(text)

    with pytest.raises(QuantizationError, match="followed back to 't'"):
        diffusers_topology(Timeless(), inputs())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": torch.zeros(2, 5, 4)}, r"state of one image.*'x'.*\(2, 5, 4\)"),
        ({"x": None}, "state of one image.*None"),
        ({"t": None}, "the timestep, called 'timestep'"),
        ({"text": torch.zeros(1, 9)}, "takes .* in these shapes.*found RuntimeError"),
        ({"more": torch.zeros(1)}, "found TypeError.*more"),
    ],
)
def test_inputs_that_do_not_fit_are_an_error(given, message):
    """One image, a timestep, and what the network takes."""
    with pytest.raises(QuantizationError, match=message):
        diffusers_topology(Plain(), inputs(**given))
