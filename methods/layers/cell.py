"""Cells (AdaBERT)."""
