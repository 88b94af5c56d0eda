"""`brickyard-agent`: the commands on a host."""
