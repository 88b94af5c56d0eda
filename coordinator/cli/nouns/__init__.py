"""One module per noun: its verbs."""
