"""Kernels: what identifies one, its arithmetic in plain torch, its program, its compiled form.

Here: specs, tiles, border tables, TileLang programs and Triton kernels, compilers, the reference
    arithmetic, and the self-test that every compiled kernel passes before it is used.
Not here: layers and blocks, which own weights and tables and call kernels.
"""
