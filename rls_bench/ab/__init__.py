"""Two commits in one run: workers of both in every launch, so that launch, drift and neighbours cancel in pairs."""
