"""The survey: a pass over a dataset before its rows are checked, on all cores.

It finds what a single row does not show (near-duplicates, leaks, languages, the task), and what takes long to look for
(personal data and secrets). The checks in `services/validate/checks` then know it for every line."""
