"""Latency of a device: the parts that a space's networks are made of are timed, and their sum is calibrated on whole networks."""
