"""TFMQ-DM (arXiv:2311.16503) and its extension (arXiv:2407.19547) as a quantizer of tfq-bench."""
