"""What Brickyard has beyond Block Storage, below `/brickyard/v1`."""
