"""One row per model type: what transformers assumes where the file is silent."""
