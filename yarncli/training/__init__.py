"""Give a conversion to a trainer, check it during the training, and restore the result."""
