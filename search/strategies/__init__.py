"""Strategies that propose architectures: one class each, and one registry."""
