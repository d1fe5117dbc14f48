"""The fixtures that all folders share."""

pytest_plugins = ["tests.support.fixtures"]
