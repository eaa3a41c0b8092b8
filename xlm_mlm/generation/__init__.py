"""Running a trained model: over a dataset into files, and over texts."""
