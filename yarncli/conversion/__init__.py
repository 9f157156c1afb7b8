"""Writing a context extension into a checkpoint."""
