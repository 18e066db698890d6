"""Helpers that several tests share: fakes, data, real servers, a user of the stack. There are no tests here."""
