"""What rows are about: their texts, task, languages and refusals, and the words in which the report says so."""
