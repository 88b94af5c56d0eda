"""What all commands share: lazy groups, forms of output, errors as sentences, exit codes."""
