"""A suite becomes a plan: cells with content keys.

Here: the TOML file (`suite`), its components and grid, the ingredients of keys (`stage_keys`), the
    plan and how it is made, and what it says before any work; a suite written from choices
    (`suite_draft`), and what could be planned on this machine (`diagnosis`).
Not here: anything that runs a stage (`pipeline`) or reads results (`store`).
Imports: assets, errors, foreign, host, keys, protocols, provenance, providers, types.
"""
