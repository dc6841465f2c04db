"""One causal-LM core for policy, PRM and SFT."""
