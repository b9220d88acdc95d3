"""A suite of a bad quantizer, if there is one, beside full precision and `rtn`."""

SUITE = """\
schema = 1
suite = {{name = "bad", threads = 1}}
sampling = {{sampler = "ddim", steps = 2, images = 2, batch = 2, shard = 2}}
calibration = {{images = 2, batch = 2}}
model = [{{name = "tiny"}}]
quantizer = [{{name = "fp"}}, {bad}{{name = "rtn", wbits = [4], abits = [8]}}]
backend = [{{name = "simulate"}}]
metric = [{{name = "paired"}}]
"""
