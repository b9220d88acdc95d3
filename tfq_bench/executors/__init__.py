"""Who runs the tasks: `inline` in this process, `process` those of a cell in one of their own.

An executor gets tasks in an order in which dependencies come first. It starts a task when all the
tasks it needs have finished, gives up a task when one of them failed, runs an exclusive task
alone (on its GPU, where tasks are placed on several), and reports each end by calling `done`.

Here: where tasks run: in this process, or in which other one, and on which GPU.
Not here: what a task does (`pipeline`), and what it is (`types.tasks`).
Imports: errors, foreign, provenance, store, types.
"""
