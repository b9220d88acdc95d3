"""What plugins answer, as it is remembered or found out now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfq_bench.foreign.text import printable
from tfq_bench.host.discovery.kept import Kept
from tfq_bench.host.inspection import Draft, PluginInfo

__all__ = ["ask"]


def ask(drafts: Sequence[Draft], *, host_version: str, anew: bool) -> None:
    """Gives each draft what its plugin answers.

    Args:
        host_version: with a digest of the host's code where that is editable.
        anew: whether to try also the plugins whose answer is remembered.
    """
    if not drafts:
        return
    kept = Kept(host_version)
    entries = {id(draft): _entry(draft.info) for draft in drafts}
    unknown = []
    for draft in drafts:
        answer = None if anew else kept.get(entries[id(draft)])
        if answer is None or not _take(draft, answer):
            unknown.append(draft)
    if not unknown:
        return
    from tfq_bench.host.discovery.trial import tried

    asked = [entries[id(draft)] for draft in unknown]
    answered = []
    for draft, entry, answer in zip(unknown, asked, tried(asked), strict=True):
        if _take(draft, answer):
            answered.append((entry, answer))
        else:
            draft.refuse("It answers the host with something else than it offers.")
    kept.add(answered)


def _entry(info: PluginInfo) -> dict[str, str]:
    return {
        "name": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "module": info.module,
    }


def _take(draft: Draft, answer: Mapping[str, Any]) -> bool:
    """Whether `answer` is one; then it is the draft's."""
    try:
        disturbances = ", ".join(printable(one, 200) for one in answer["disturbances"])
        draft.take(answer)
    except (KeyError, TypeError, ValueError):
        return False
    if disturbances:
        draft.refuse(
            f"While it is imported and asked what it offers, it {disturbances}. "
            "A plugin's entry point only describes; 'tfq-bench plugins check' tries it again."
        )
    return True
