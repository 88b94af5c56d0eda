"""The compute service (Nova): what it is told of volumes that its servers use, and what it is asked about them."""
