"""The decisions of the api: what is known of a job, how a fact changes that, and which messages its history gets."""
