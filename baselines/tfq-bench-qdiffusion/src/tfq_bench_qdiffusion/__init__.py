"""Q-Diffusion (arXiv:2302.04304) as a quantizer of tfq-bench."""
