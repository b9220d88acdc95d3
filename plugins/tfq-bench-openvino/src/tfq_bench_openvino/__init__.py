"""A quantized network as one OpenVINO model for `tfq_bench`: int8 products on any x86."""
