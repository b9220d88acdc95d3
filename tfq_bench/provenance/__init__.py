"""What code and which machine gave a result.

Here: versions of distributions, the code that runs for a provider and its identity, what moved
    between two sets of ingredients, the environment's description, GPUs among it, git's commits.
Not here: keys that are made of it (`plan.stage_keys`), and who changed what while a run went on
    (`pipeline.guard`).
Imports: foreign, keys, version.
"""
