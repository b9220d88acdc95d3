"""Reports of tfq-bench runs as one self-contained HTML file.

`plugin` is what the host finds, `renderer` the way from run folders to a file, `history` that from
many runs to one, `formatting` numbers as readers want them; `view` holds what a report says and
`charts` what it draws. Not here: new numbers, every one comes from a record. Each may import only
what stands to its right: `history`, `renderer`, `charts`, `view`, `formatting`; of the host the
store, comparisons and types.
"""
