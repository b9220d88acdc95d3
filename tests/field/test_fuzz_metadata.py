"""Whatever lies in a dist-info, discovery lists it in printable lines and raises nothing."""

import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from tfq_bench.foreign.text import printable
from tfq_bench.host.discovery import installed
from tfq_bench.host.inspection import Draft, PluginInfo
from tfq_bench.testing.fuzzing import fuzz

LINES = st.sampled_from(
    [
        "[tfq_bench]",
        "[tfq_bench",
        "tfq_bench]",
        "[console_scripts]",
        "a = module",
        "a=b.c:d [extra]",
        "= x",
        "x =",
        "# a = b",
        "a\tb = ..",
        "\x1b[31m = m",
        "Name: plain",
        "Name:",
        "Name: a b",
        "Version: 1.0",
        "Version: one",
        "",
        "\u202e = m",
    ]
)
TEXTS = st.lists(st.one_of(LINES, st.text(max_size=20)), max_size=8).map("\n".join)
CONTENT = st.one_of(
    TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=60),
    st.sampled_from(
        [b"{}", b"[]", b"null", b'{"dir_info": {"editable": true}}', b'{"dir_info": 1}', b"{" * 500]
    ),
)
FILES = st.fixed_dictionaries(
    {},
    optional={
        "METADATA": CONTENT,
        "PKG-INFO": CONTENT,
        "entry_points.txt": st.one_of(
            CONTENT, TEXTS.map(lambda text: f"[tfq_bench]\n{text}".encode("utf-8", "replace"))
        ),
        "direct_url.json": CONTENT,
    },
)
STEMS = st.one_of(
    st.sampled_from(["plain-1.0", "a-b-c", "-", "x", "tfq_bench_x-2", "A.B-1"]),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=20),
)


@fuzz(60)
@given(st.dictionaries(STEMS, FILES, min_size=1, max_size=3))
def test_fuzz_metadata(distributions):
    """Each entry is a line of text with a status; nothing is imported, and nothing raises."""
    with tempfile.TemporaryDirectory() as folder:
        for stem, files in distributions.items():
            info = Path(folder) / f"{stem[:40]}.dist-info"
            info.mkdir(exist_ok=True)
            for name, content in files.items():
                (info / name).write_bytes(content)
        with mock.patch.object(installed, "_search_path", return_value=[folder]):
            found = installed.installed()
    for draft in found:
        plugin = draft.finish()
        for text in (plugin.name, plugin.distribution, plugin.version, plugin.module):
            assert printable(text, 100) == " ".join(text.split())
        assert printable(plugin.reason) == plugin.reason
        assert plugin.status in ("ok", "broken")
        assert (plugin.status == "ok") == (plugin.reason == "")


ANSWERS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(
                st.sampled_from(["offers", "faults", "kind", "name", "options", "api", "factory"]),
                st.text(max_size=5),
            ),
            inner,
            max_size=6,
        ),
    ),
    max_leaves=20,
)


@fuzz(100)
@given(
    st.one_of(
        ANSWERS,
        st.fixed_dictionaries({"offers": ANSWERS, "faults": ANSWERS}),
    )
)
def test_fuzz_answers(answer):
    """What a child says is an answer or a ValueError, never a half of one."""
    draft = Draft(PluginInfo(name="a", distribution="b", version="1", module="c"))
    try:
        draft.take(answer)
    except ValueError:
        assert ([], []) == (draft.offers, draft.faults)
