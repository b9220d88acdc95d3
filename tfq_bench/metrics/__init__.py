"""The host's own metrics, and what a model's plugin needs to ship reference statistics.

Public for plugins: `tfq_bench.metrics.extractors` (the networks whose features are compared) and
`tfq_bench.metrics.reference` (the file that a model's `reference(extractor)` returns). Everything
else here is reached through the providers of `tfq_bench.builtin`.
"""
