"""What is asked: test rows, with solved examples or without, general questions, and prompts without a reference."""
