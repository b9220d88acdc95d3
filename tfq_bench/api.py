"""What plugin authors import: ``from tfq_bench import api``.

Providers describe a plugin, types carry data, protocols say what to implement, and
`hookimpl` marks the functions that the host calls. The toolkit for quantizers is
`tfq_bench.quant`, the metrics' building blocks are `tfq_bench.metrics`; fixtures and contract tests
are in `tfq_bench.testing`.
"""

from __future__ import annotations

from tfq_bench.assets.declared import *  # noqa: F403  (re-exported, see __all__)
from tfq_bench.assets.declared import __all__ as _assets
from tfq_bench.errors import *  # noqa: F403
from tfq_bench.errors import __all__ as _errors
from tfq_bench.foreign.text import harmless, parse_json, printable
from tfq_bench.keys import digest, file_digest
from tfq_bench.protocols import *  # noqa: F403
from tfq_bench.protocols import __all__ as _protocols
from tfq_bench.providers import *  # noqa: F403
from tfq_bench.providers import __all__ as _providers
from tfq_bench.types import *  # noqa: F403
from tfq_bench.types import __all__ as _types
from tfq_bench.types.models import *  # noqa: F403
from tfq_bench.types.models import __all__ as _models
from tfq_bench.types.networks import *  # noqa: F403
from tfq_bench.types.networks import __all__ as _networks
from tfq_bench.types.tasks import Done, Outcome, Progress, Start, Task, Work

__all__ = [
    "Done",
    "Outcome",
    "Progress",
    "Start",
    "Task",
    "Work",
    "digest",
    "file_digest",
    "harmless",
    "parse_json",
    "printable",
    *_assets,
    *_providers,
    *_types,
    *_models,
    *_networks,
    *_protocols,
    *_errors,
]  # pyright: ignore
