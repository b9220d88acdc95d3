"""From a state to a network that executes it.

Here: the simulation with a state's integers, attention, what every backend's lowering does, and
    checks of kernels against the integers, layer by layer.
Not here: kernels (plugins), and the checks over a whole run (`pipeline.agreement`).
Imports: errors, quant, quant.calibrate, quant.state, seeds, types.
"""
