"""Text and code of others, made harmless.

Here: text that is quoted in messages and files (`text`), and whose KeyboardInterrupt it is
    (`interrupts`).
Not here: plugins in particular (`host`), and what they leave behind in a process
    (`pipeline.guard`).
Imports: nothing.
"""
