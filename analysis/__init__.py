"""Reads the archive: head-to-head tables and figures."""
