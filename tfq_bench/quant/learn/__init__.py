"""Rounding and step sizes, learned block by block.

Here: AdaRound, LSQ, the network with fake quantization that is learned on, block reconstruction
    with its data and checkpoints, bias correction.
Not here: what one paper alone does (its plugin).
Imports: errors, keys, quant, quant.calibrate, quant.lower, quant.state, seeds, store, types.
"""
