"""Evaluation: which problem sets there are, how a policy is asked, what its answers are worth, and how sure that is.

    sets ──► reading ──► policies: k samples each ──► outcomes: graded, grouped ──► summary, with intervals

Used by the trainer while it trains and by `primectl evaluate` alike.
"""
