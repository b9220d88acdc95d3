"""What a plan knows before any work: metrics' names of values, and whether they can; models' notes.

Two numbers of one cell never share a name: tables, records, baselines and gates go by names. A
metric that says its names (`NamesValues`) is taken at its word; those of another are known when its
values are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfq_bench.errors import BrokenPlugin, MetricError, SuiteError, TfqError
from tfq_bench.foreign import interrupts
from tfq_bench.foreign.text import printable
from tfq_bench.host.inspection import cause, out_of_memory
from tfq_bench.protocols import ChecksImages, NamesValues
from tfq_bench.provenance.libraries import canonical_name
from tfq_bench.types import Component, MeasuredBy
from tfq_bench.types.models import Remarks

if TYPE_CHECKING:
    from tfq_bench.providers import Provider

__all__ = ["Asked", "cautions", "refuse_equal", "remarks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One metric of a suite.

    Args:
        content: its options as keys know them: files by their bytes.
        metric: what its factory made.
        distribution: `name==version` of the plugin.
    """

    component: Component
    provider: Provider
    content: Mapping[str, Any]
    metric: Any
    distribution: str

    @property
    def words(self) -> str:
        """For messages."""
        return f"'{self.component.title}' ({self.distribution.partition('+')[0]})"

    @property
    def measured_by(self) -> MeasuredBy:
        """What of the metric belongs to the meaning of its numbers."""
        distribution = canonical_name(self.distribution.partition("==")[0])
        given = self.component.options
        return MeasuredBy(
            metric=f"{distribution}:{self.provider.name}",
            options={
                option.name: given[option.name]
                if self.content[option.name] == given[option.name]
                else f"sha256:{self.content[option.name][:16]}"
                for option in sorted(self.provider.options, key=lambda option: option.name)
                if given[option.name] != option.default and not option.in_definition
            },
        )


def refuse_equal(asked: tuple[Asked, ...]) -> None:
    """Nothing, when every number that is known by now will have a name of its own.

    Raises:
        SuiteError: a metric stands twice with equal options, or two share a name.
    """
    owner: dict[str, Asked] = {}
    for number, mine in enumerate(asked):
        for other in asked[:number]:
            if mine.provider is other.provider and mine.content == other.content:
                raise SuiteError(
                    f"the suite asks twice for the metric '{mine.component.name}' with equal "
                    "options; remove one of them."
                )
        for name in _names(mine.metric):
            titled = mine.component.titled(name)
            if (first := owner.setdefault(titled, mine)) is not mine:
                raise SuiteError(_clash(first, mine, titled))


def cautions(asked: tuple[Asked, ...], images: int) -> Iterator[str]:
    """One sentence for each metric whose numbers rest on few images.

    Raises:
        SuiteError: there are too few images for one of them.
        BrokenPlugin: a metric's code raises while it is asked.
    """
    for mine in asked:
        if not isinstance(mine.metric, ChecksImages):
            continue
        try:
            caution = mine.metric.check(images=images)
        except MetricError as error:
            raise SuiteError(
                f"metric {mine.words}: {error} Raise 'images' under [sampling], or leave the "
                "metric out."
            ) from error
        except TfqError:
            raise
        except BaseException as error:
            if interrupts.asked_for(error) or out_of_memory(error):
                raise
            raise BrokenPlugin(
                f"metric {mine.words} cannot say whether it can judge {images} images: "
                f"{cause(error)}."
            ) from error
        if caution:
            yield f"{mine.component.title}: {printable(caution)}"


def remarks(model: Any, name: str, sampler: str) -> Iterator[str]:
    """One sentence for a model that has something to say of how it was read.

    Args:
        name: of the model. sampler: the one that the suite uses.

    Raises:
        BrokenPlugin: the model's code raises while it is asked, or answers with something else.
    """
    if not isinstance(model, Remarks):
        return
    try:
        found = [printable(str(one)) for one in model.remarks(sampler)]
    except TfqError:
        raise
    except BaseException as error:
        if interrupts.asked_for(error) or out_of_memory(error):
            raise
        raise BrokenPlugin(f"model '{name}' cannot say how it was read: {cause(error)}.") from error
    if found:
        yield f"model '{name}': {'; '.join(found)}."


def _names(metric: Any) -> tuple[str, ...]:
    """The names of its values, whatever the cell, without its label; empty when it says none."""
    return tuple(metric.names) if isinstance(metric, NamesValues) else ()


def _clash(first: Asked, second: Asked, name: str) -> str:
    told = f"metric {first.words} and metric {second.words} both report '{printable(name, 100)}'"
    if first.provider is second.provider:
        differ = ", ".join(
            f"{option} = {first.component.options[option]!r} and "
            f"{second.component.options[option]!r}"
            for option in sorted(first.content)
            if first.content[option] != second.content[option]
        )
        told += f"; they differ in {printable(differ, 300)}"
    return (
        f"{told}. A number needs a name of its own: give one of the two [[metric]] tables a label "
        f"(label = \"second\" makes it '{printable(name, 100)}:second'), or remove it."
    )
