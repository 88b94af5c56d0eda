"""What several kernel tests share."""
