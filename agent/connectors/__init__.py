"""How this host reaches a volume: one module per transport."""
