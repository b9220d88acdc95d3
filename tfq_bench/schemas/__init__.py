"""JSON schemas of the files that the tool reads and writes, for editors and for other tools.

Here: the files, and `python -m tfq_bench.schemas`, which makes those that are derived from code
    again.
Not here: the declarations they are made from (`types.records`, `stats.rules`, `plan.suite`).
Imports: plan, store.
"""
