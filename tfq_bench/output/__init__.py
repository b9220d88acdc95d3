"""Results as text for terminals, Markdown, JUnit and GitHub.

Here: what commands print and CI reads: tables, progress, Markdown, JUnit, annotations.
Not here: HTML (the distribution in `reports/`), and verdicts themselves (`stats`).
Imports: errors, foreign, host, stats, store, trends.
"""
