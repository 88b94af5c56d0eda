"""The tables of Block Storage v3, one module per noun."""
