"""`brickyard dev`: a whole site, coordinator and agents, from one process."""
