"""The commands and their options, one file per topic. The packages beside this one do the work."""
