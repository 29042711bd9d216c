"""Pure functions of arrays: no Flax, no files, no devices."""
