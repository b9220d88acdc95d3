"""A field is declared once, and its annotation says how it is written, checked and described."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, make_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import jsonschema
import pytest

from tfq_bench.store import baseline, record_json
from tfq_bench.store.codec import Struct
from tfq_bench.store.records import append, read
from tfq_bench.store.shapes import Misfit
from tfq_bench.types import Record
from tfq_bench.types.records import Key

STORED = Path(__file__).with_name("stored.jsonl")


@dataclass(frozen=True, kw_only=True)
class Inner:
    """What stands inline.

    Args:
        curve: floats, and
            what is none.
    """

    curve: tuple[float, ...]
    mode: Literal["a", "b"] = "a"


@dataclass(frozen=True, kw_only=True)
class Outer:
    """One of everything."""

    inner: Annotated[Inner, "inline"]
    name: Key
    parts: tuple[Inner, ...] = ()
    series: Mapping[str, tuple[float, ...]]
    note: str | None = None
    share: Annotated[Annotated[float, "amount"] | None, "later"] = 0.5


OUTER = Outer(inner=Inner(curve=(1.0, math.inf)), name="n", parts=(Inner(curve=()),), series={})


def fits(struct, data):
    """Whether the check takes `data`; the JSON schema must say the same."""
    valid = jsonschema.Draft202012Validator(struct.shape.schema).is_valid(data)
    try:
        struct.shape(data, "")
    except Misfit:
        assert not valid
        return False
    assert valid
    return True


def test_every_kind_of_field_reads_back_as_it_was():
    """Inline fields stand in line, floats that are none are words, and strict JSON can say it."""
    struct = Struct(Outer)
    data = json.loads(json.dumps(struct.to_json(OUTER), allow_nan=False))
    assert ["curve", "mode", "name", "parts", "series", "note", "share"] == list(data)
    assert [1.0, "Infinity"] == data["curve"]
    assert fits(struct, data)
    assert struct.from_json(data) == OUTER


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"name": "no/key"}, "at 'name', found 'no/key'"),
        ({"mode": "c"}, "expected 'a' or 'b' at 'mode', found 'c'"),
        ({"note": 1}, "expected text at 'note', found 1"),
        ({"share": -1.0}, "from 0 on at 'share', found -1.0"),
        ({"curve": [1.0, "inf"]}, r"expected a number at 'curve\[1\]', found 'inf'"),
        ({"parts": [{"curve": []}]}, r"expected the field 'mode' at 'parts\[0\]', found none"),
        ({"series": {"a": 1}}, r"expected a list at 'series.a', found 1"),
        ({"extra": 1}, "expected no field 'extra', found it"),
    ],
)
def test_what_does_not_fit_is_named(changed, where):
    """Expected, found and the place; the schema refuses it too."""
    struct = Struct(Outer)
    data = struct.to_json(OUTER) | changed
    assert not fits(struct, data)
    with pytest.raises(Misfit, match=where):
        struct.shape(data, "")


def test_only_later_fields_may_be_missing():
    """A default of the class is no leave to be left out."""
    struct = Struct(Outer)
    data = struct.to_json(OUTER)
    assert ["share"] == [
        name for name in data if fits(struct, {key: data[key] for key in data if key != name})
    ]
    del data["share"]
    assert struct.from_json(data).share == 0.5


def test_the_docstring_describes_the_field():
    """In the schema, as one line."""
    curve = Struct(Outer).shape.schema["properties"]["curve"]
    assert curve["description"] == "Floats, and what is none."


def test_a_mark_that_nobody_knows_is_an_error():
    """So that a slip in an annotation is no field without a check."""
    with pytest.raises(KeyError, match="cuont"):
        Struct(make_dataclass("Slip", [("n", Annotated[int, "cuont"])]))


def test_a_new_field_of_a_record_is_one_line(record):
    """It reads back, it is checked, and it is in the schema."""
    longer = Struct(
        make_dataclass(
            "Longer",
            [("colour", str | None, None)],
            bases=(Record,),
            frozen=True,
            slots=True,
            kw_only=True,
        )
    )
    known = {field.name: getattr(record(), field.name) for field in fields(Record)}
    written = longer.kind(**known, colour="red")
    data = longer.to_json(written)
    assert longer.from_json(data).colour == "red"
    assert fits(longer, data)
    assert not fits(longer, data | {"colour": 1})
    assert "colour" in longer.shape.schema["required"]


def test_stored_lines_are_written_as_they_were(tmp_path):
    """Byte for byte, checksums among them."""
    append(tmp_path / "records.jsonl", read(STORED))
    assert STORED.read_bytes() == (tmp_path / "records.jsonl").read_bytes()


@pytest.mark.parametrize(("name", "module"), [("record", record_json), ("baseline", baseline)])
def test_schema_files_are_current(name, module):
    """`python -m tfq_bench.schemas` was run after the last change of a class."""
    path = files("tfq_bench") / "schemas" / f"{name}.schema.json"
    schema = json.loads(path.read_text("utf-8"))
    assert module.json_schema() == schema
    jsonschema.Draft202012Validator.check_schema(schema)
