"""What the documentation shows, run: a page's code is in the test file of the page's name."""
