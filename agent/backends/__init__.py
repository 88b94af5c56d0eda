"""Where volumes live: one file per kind of back end, all behind `base.Backend`."""
