"""Metrics of translations against references; no model, no device."""
