"""x86 int8 kernels for `tfq_bench`: oneDNN convolutions and linear layers through torch."""
