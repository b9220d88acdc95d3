"""Whatever is in the fields of a metric's value, it is stored well or refused in words."""

import json
import math
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tfq_bench.errors import MetricError
from tfq_bench.foreign.text import printable
from tfq_bench.pipeline.values import checked_values
from tfq_bench.store.records import metric_from_json, metric_to_json
from tfq_bench.testing.fuzzing import fuzz
from tfq_bench.types import Interval, MetricDefinition, MetricValue

GOOD = MetricValue(
    definition=MetricDefinition(
        name="score", unit="dB", direction="lower", summary="s", parameters={"formula": 1}
    ),
    value=2.0,
    n=3,
    interval=Interval(low=1.0, high=3.0, level=0.95, method="m"),
    replicates=(1.5, 2.5),
    pairing="p",
    series={"curve": (1.0, 2.0)},
)

ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.characters(categories=["Cs", "Cc"]),
    st.binary(max_size=3),
    st.lists(st.floats(), max_size=3),
    st.tuples(st.floats(), st.floats()),
    st.dictionaries(st.text(max_size=3), st.floats(), max_size=2),
    st.recursive(st.floats(), lambda inner: st.lists(inner, max_size=2), max_leaves=20),
    st.sampled_from(
        [10**400, np.float32(1.5), np.int64(3), np.arange(3.0), object(), range(3), 1j]
    ),
)

PLACES = {
    "value": (
        "value",
        "n",
        "interval",
        "replicates",
        "pairing",
        "reference",
        "series",
        "definition",
    ),
    "definition": ("name", "unit", "direction", "summary", "parameters", "volatile", "margin"),
    "interval": ("low", "high", "level", "method"),
}


def mutated(value, place, field, content):
    """`value` with one field, of itself or of a part, replaced by `content`."""
    if place == "value":
        return replace(value, **{field: content})
    return replace(value, **{place: replace(getattr(value, place), **{field: content})})


@fuzz(400)
@given(
    changes=st.lists(
        st.sampled_from(
            [(place, field) for place, fields in PLACES.items() for field in fields]
        ).flatmap(lambda spot: st.tuples(st.just(spot), ANY)),
        min_size=1,
        max_size=3,
    ),
    reference=st.sampled_from([None, "cell"]),
)
def test_fuzz_values_are_stored_well_or_refused_in_words(changes, reference):
    """Whatever passes reads back from strict JSON as what it was, and is finite."""
    value = GOOD
    for (place, field), content in changes:
        if place != "value" and not isinstance(getattr(value, place), type(getattr(GOOD, place))):
            continue  # the part itself was replaced before
        value = mutated(value, place, field, content)
    kept = refusal = None
    try:
        (kept,) = checked_values((value,), reference=reference)
    except MetricError as error:
        refusal = str(error)
    if kept is None:
        assert refusal
        assert refusal == printable(refusal, 1000)
        return
    line = json.dumps(metric_to_json(kept), allow_nan=False).encode()
    assert metric_from_json(json.loads(line)) == kept
    numbers = [kept.value, *kept.replicates, *(x for curve in kept.series.values() for x in curve)]
    if kept.interval is not None:
        numbers += [kept.interval.low, kept.interval.high, kept.interval.level]
        assert kept.interval.low <= kept.interval.high
    assert all(type(x) is float and math.isfinite(x) for x in numbers)
    assert type(kept.n) is int
    assert kept.n >= 1
    assert kept.definition.name
    assert kept.definition.name.isprintable()
    assert kept.definition.direction in ("lower", "higher", "none")
    assert kept.reference in (None, reference)
