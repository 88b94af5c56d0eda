"""Commands on the state directory of a coordinator."""
