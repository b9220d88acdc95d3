"""JSON schemas of the files that users write and read, for editors and for other tools.

`python -m tfq_bench.schemas` writes those anew that are derived from the code. Those of rules are
written by hand.
"""
