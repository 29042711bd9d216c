"""Models in other formats, in and out: one file a format."""
