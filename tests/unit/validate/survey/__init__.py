"""The survey: what is known of a dataset before its rows are checked."""
