"""Reading the host and running its tools: the one door for commands, locks, facts."""
