"""What code and which machine gave a result.

Here: versions of distributions, the code that runs for a provider and its identity, what moved
    between two sets of ingredients, git's commits, the environment's description, GPUs among it,
    and whether the torch that is installed computes.
Not here: keys that are made of it (`plan.stage_keys`), and who changed what while a run went on
    (`pipeline.guard`).
Imports: foreign, keys, version.
"""
