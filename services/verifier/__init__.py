"""The verifier service: says whether answers are right, and runs the programs among them in a sandbox."""
