"""From observed inputs to ranges.

Here: ranges of tensors, observers of a network's inputs, temporal features over the steps.
Not here: anything that descends a gradient (`quant.learn`).
Imports: errors, quant, quant.state, types.
"""
