"""How what lies on this host is offered to others: so far, transfers on the data port."""
