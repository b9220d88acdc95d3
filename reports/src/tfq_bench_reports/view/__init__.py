"""What a report says: a run folder becomes a view model of plain text and numbers.

Here: the view model (`types`), what fills it from a run (`reader`, `trouble`, `kernels`,
    `environments`, `naming`, `redact`), and what follows from it: groups, rows, tables, deltas,
    findings, the verdict.
Not here: what is drawn (`charts`), HTML (`templates`, `renderer`), and numbers that no record has.
Imports: formatting, tfq_bench.api, tfq_bench.stats, tfq_bench.store.
"""
