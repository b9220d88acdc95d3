"""Who runs the tasks: `inline` in this process, `process` each in a fresh one.

An executor gets tasks in an order in which dependencies come first. It starts a task when all the
tasks it needs have finished, gives up a task when one of them failed, runs an exclusive task
alone (on its GPU, where tasks are placed on several), and reports each end by calling `done`.

Here: where tasks run: `inline` in this process, `process` each in its own, on which GPU.
Not here: what a task does (`pipeline`), and what it is (`types.tasks`).
Imports: errors, foreign, provenance, store, types.
"""
