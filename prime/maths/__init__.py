"""Pure tensor functions: rewards, advantages, losses, filtering. Imports torch and nothing else."""
