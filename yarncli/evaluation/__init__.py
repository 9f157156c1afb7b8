"""Measuring passkey retrieval over lengths and depths."""
