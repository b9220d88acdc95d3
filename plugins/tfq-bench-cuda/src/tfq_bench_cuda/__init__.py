"""int8 kernels on NVIDIA GPUs for `tfq_bench`: convolutions and linear layers in TileLang."""
