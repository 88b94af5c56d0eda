"""What the coordinator knows: tables, one repository module per noun, and the one way a status moves."""
