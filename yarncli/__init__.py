"""Extend the context window of Hugging Face checkpoints, and prove that it worked."""

__version__ = "0.1.0"
