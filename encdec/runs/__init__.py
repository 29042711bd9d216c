"""Run folders: settings, checkpoints, parameters and measurements on disk."""
