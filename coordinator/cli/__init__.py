"""The commands: `brickyard` (users and operators), `brickyard dev`, `brickyard-coordinator` (the service)."""
