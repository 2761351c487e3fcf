"""Finds sub-networks: strategies, the archive and its query."""
