"""Known cures of differentiable search, one file each; all off in the paper."""
