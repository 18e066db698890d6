"""The pages that services write, opened in a headless Chrome and used as people use them."""
