"""Files that must be on disk before anything runs: weights, statistics.

Here: how an asset is declared and found (`declared`), the downloads, which are the only ones
    (`fetching`), and the Inception network that clean-fid publishes (`published`).
Not here: which plugin needs which file (`plan.inventory`), and the command (`cli.assets`).
Imports: errors, foreign, keys, types.
"""
