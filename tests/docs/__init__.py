"""Runs the code in the documentation. The test file of a page has the page's name."""
