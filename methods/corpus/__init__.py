"""Unlabelled text: packed into sequences of equal length, its words masked."""
