"""The stages of a cell, one a file, and the order in which they run (`cell.py`).

Here: one stage a file, the cell that runs them in order (`cell`), the plan that runs cells (`run`),
    and what becomes of them (`outcome`, `cell_records`).
Not here: what is asked for (`plan`), how weights are quantized (`quant`), files (`store`), and how
    foreign code is held to its word (`pipeline.guard`).
Imports: errors, foreign, host, keys, plan, protocols, provenance, quant, quant.lower,
    quant.state, seeds, store, types.
"""
