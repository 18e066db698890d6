import pytest

# the suites are not test modules, so pytest would not show the values in their assertions without this
pytest.register_assert_rewrite("tests.contract.store_suite", "tests.contract.bus_suite")
