"""What foreign code may not change in a process, and how a change is seen and undone.

Here: snapshots of a loaded model, functions that every result is computed with, settings of Python
    and torch.
Not here: checks of what foreign code returns: of plugins' answers (`host.answers`), kernels
    (`pipeline.agreement`), numbers (`pipeline.values`).
Imports: errors.
"""
