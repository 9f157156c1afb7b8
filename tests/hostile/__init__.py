"""Checkpoints made to do harm, and what each command must do with them."""
