"""Helpers that several tests share: fakes, datasets, servers, a user of the stack. There are no tests here."""
