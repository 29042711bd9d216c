"""Devices: layouts, sharding, collectives, processes. The only folder that says pmap."""
