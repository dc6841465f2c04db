"""Where a run's figures are kept: files in the run folder, and the experiment trackers that teams use."""
