"""The version of the host; `pyproject.toml` has it too, and a test says that they agree."""

__version__ = "0.1.0"
