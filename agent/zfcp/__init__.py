"""FCP LUNs on IBM Z: added and removed by hand where the kernel does not scan by itself."""
