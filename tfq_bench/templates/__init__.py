"""What `tfq-bench plugins new` writes: one folder of text for each kind of plugin.

Here: the files of a distribution as templates, below `plugin/`: `every` has what all kinds share,
    and each kind its own; `author_kit` fills them in.
Not here: the command, and what it refuses (`cli.new_plugin`).
Imports: nothing.
"""
