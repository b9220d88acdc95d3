"""The plugin host: what is installed becomes a table of providers.

Here: the hooks (`hookspecs`), the built-in providers (`builtin`), how one plugin is inspected and
    its answers are held to their protocol, all plugins together (`plugins`), the table of what
    they offer (`table`) and two quantizers as one (`wrapping`).
Not here: how plugins are found and tried without believing them (`host.discovery`), and what they
    do once they work (`pipeline`).
Imports: assets, errors, foreign, provenance, providers, types, version.
"""
