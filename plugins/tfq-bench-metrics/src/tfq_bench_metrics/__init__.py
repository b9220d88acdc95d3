"""LPIPS and CLIP score for `tfq_bench`: metrics whose networks come with no package."""
