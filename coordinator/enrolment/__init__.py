"""Own certificate authority, join tokens, signing and renewal of the hosts' certificates."""
