"""Known blocks of diffusers with one fused pass in the place of several layers.

Here: which modules are known, what a fused pass needs of its layers, and the passes themselves.
Not here: the kernels, and the layers that own weights and tables.

A fused block stays the module that it was, layers under their own names: only its `forward` is
exchanged. So each layer can still be called, and looked at, by itself.
"""
