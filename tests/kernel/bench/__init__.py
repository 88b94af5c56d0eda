"""The kernel bench: a Debian root with the stock kernel, booted by qemu, and the tests run inside of it by pytest."""
