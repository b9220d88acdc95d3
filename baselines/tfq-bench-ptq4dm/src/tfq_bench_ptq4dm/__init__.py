"""PTQ4DM (arXiv:2211.15736) as a quantizer of tfq-bench."""
