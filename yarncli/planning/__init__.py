"""Deciding a context extension, and spelling it out as `config.json`."""
