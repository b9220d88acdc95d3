"""PTQD (arXiv:2305.10657) as a quantizer of tfq-bench that wraps others."""
