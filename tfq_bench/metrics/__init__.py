"""The host's metrics, and the building blocks that plugins use. Importing it imports torch.

A plugin imports from here and not from deeper: the networks whose features are compared, the file
of statistics that a model's `reference(extractor)` returns, and values with intervals. The host's
own metrics are reached through the providers of `tfq_bench.host.builtin`, which names them as text,
and so what is listed fast never comes here.

Here: the host's own metrics, one a file, and what metrics of plugins share with them: extractors,
    statistics, bootstrap. The door for plugins is this package, not the modules in it.
Not here: intervals and comparisons between cells (`stats`), and checks of what a metric returns
    (`pipeline.values`).
Imports: assets, errors, foreign, keys, quant, quant.calibrate, seeds, stats, types.
"""

from tfq_bench.metrics.assets import require_file
from tfq_bench.metrics.extractors import Extractor, efficientnet_lite0, extractor
from tfq_bench.metrics.features import cell_features, cell_logits
from tfq_bench.metrics.frechet import frechet_distance
from tfq_bench.metrics.paired import feature_cosine
from tfq_bench.metrics.reference import ReferenceStatistics, reference_for
from tfq_bench.metrics.resampled import bootstrap_value, mean_over_images

__all__ = [
    "Extractor",
    "ReferenceStatistics",
    "bootstrap_value",
    "cell_features",
    "cell_logits",
    "efficientnet_lite0",
    "extractor",
    "feature_cosine",
    "frechet_distance",
    "mean_over_images",
    "reference_for",
    "require_file",
]
