"""TFQ-Bench: measure and run quantized diffusion models."""

__version__ = "0.1.0"
