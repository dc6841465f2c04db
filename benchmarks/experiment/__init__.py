"""The trial of issue-size claims: does a process reward make outcome-only RL faster? See `docs/experiment/protocol.md`.

material ──► one run (all services' parts in one process) ──► results, a file per run ──► figures ──► report
"""
