"""What tests work on: data sets, jobs and their history, models that were trained, a tiny base."""
