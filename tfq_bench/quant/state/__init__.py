"""A quantized network as data.

Here: affine arithmetic, packing of codes, quantization parameters, the state and its temporal
    cache, and the files they are kept in.
Not here: how the numbers are found (`quant.calibrate`, `quant.learn`) and executed (`quant.lower`).
Imports: errors, foreign, keys, types.
"""
