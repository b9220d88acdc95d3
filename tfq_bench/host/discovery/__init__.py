"""How plugins are found without believing them.

`installed` reads what distributions declare; `trial` has each entry point imported and asked in a
child process (`child`), which also watches what it does to the process (`disturbance`); `kept`
remembers the answers. What reaches the host is data: `described` providers, faults in words.

Here: metadata of what is installed, the child process that tries it, and what is remembered of it.
Not here: what follows from it for a command (`host.plugins`).
Imports: assets, errors, foreign, host, provenance, providers.
"""
