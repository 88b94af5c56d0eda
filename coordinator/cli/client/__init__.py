"""The side of the commands that speaks to the API."""
