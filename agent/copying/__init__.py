"""The one copy engine: sparse, throttled, resumable, with progress. `engine.copy` is its door."""
