"""LUKS1 and LUKS2 on files and devices: keys, headers read by rule, headers made, payloads re-encrypted."""
