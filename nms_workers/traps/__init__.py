"""Traps and informs: received, told apart, deduplicated, kept as events."""
