"""Key managers: where secrets of volumes and images are kept."""
