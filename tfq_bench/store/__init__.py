"""Run folders on disk: artefacts, records, leases and pandas views; knows no torch.

Here: everything on disk: run folders, artefacts by content, records, baselines, histories, and
    the pandas view.
Not here: what the numbers mean (`stats`) and tensors' formats (`quant.state`).
Imports: errors, foreign, keys, plan, provenance, stats, trends, types.
"""

from tfq_bench.store.baseline import run_facts
from tfq_bench.store.disk import write_atomically
from tfq_bench.store.run import RunFolder

__all__ = ["RunFolder", "run_facts", "write_atomically"]
