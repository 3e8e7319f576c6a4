"""Configures Sphinx. The tox environment ``docs`` builds the pages."""

from __future__ import annotations

from importlib import metadata

project = "Lightbus"
author = "The Lightbus authors"
release = metadata.version("lightbus")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"Lightbus {release}"

# In docstrings, single backticks refer to a Python object.
default_role = "py:obj"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_use_ivar = True
