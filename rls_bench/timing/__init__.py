"""How long a call takes: clocks, warm-up, inner loops, caches; each question about latency has its stopwatch."""
