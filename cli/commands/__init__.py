"""The commands and their options, one file per topic. What they do is in the rooms beside this one."""
