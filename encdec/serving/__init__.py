"""The page to translate in and its JSON interface."""
