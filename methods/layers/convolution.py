"""Separable convolutions (NAS-BERT)."""
