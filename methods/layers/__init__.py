"""The building blocks: each file holds a part's spec (sizes, closed-form costs) and, beside it, the module it builds."""
