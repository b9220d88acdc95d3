"""Other tools as contestants for `tfq_bench`: they quantize and execute by themselves."""
