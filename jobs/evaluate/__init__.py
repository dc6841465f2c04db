"""Evaluates a policy on problem sets: samples, grades, scores, reports. Behind `primectl evaluate` and `compare`.

settings ──► run: samples into the folder, graded as they come ──► report: figures, Markdown, HTML
                      └── folder: what is on disk, read back after a kill
"""
