"""A page to translate in."""
