import pytest

# the suites are no test modules, so pytest would not show the values in their assertions
pytest.register_assert_rewrite("tests.contract.store_suite", "tests.contract.bus_suite")
