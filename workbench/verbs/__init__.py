"""The verbs, one file each: what the command line and the notebooks call."""
