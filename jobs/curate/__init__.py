"""From raw public corpora to problems with verified answers; see `run.py` for the order of the stages."""
