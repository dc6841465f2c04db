"""Does a process reward reach the same accuracy with fewer samples than outcomes alone? `docs/experiment/protocol.md`.

material ──► one run (all services' parts in one process) ──► results, a file per run ──► figures ──► report
"""
