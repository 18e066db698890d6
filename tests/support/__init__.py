"""What several tests need: fakes, data sets, real servers, a user of the system. No test is here."""
