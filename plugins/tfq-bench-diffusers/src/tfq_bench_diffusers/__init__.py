"""Models of tfq-bench through Hugging Face diffusers."""
