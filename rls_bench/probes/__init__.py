"""What the hardware saw of a call beside its latency: energy, counters, memory, launches, share of the peak."""
