"""What several tests need: fakes, datasets, servers, a user of the stack. There are no tests here."""
