"""Generated from `proto/prime/v1` by the build; never edited, never in git."""
