"""Measurements a person can repeat: `nms-workers bench`."""
