"""Devices: layouts, sharding, collectives, processes. The only folder that calls `jax.pmap`.

Everything else computes on the arrays of one device, and is given an `Axis` where devices have to
communicate. See `encdec.parallel.pmap` for why the step is mapped with pmap.
"""
