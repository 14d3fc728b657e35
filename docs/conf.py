"""Sphinx settings of the manual."""

project = "htlease"
extensions = ["myst_parser"]
html_theme = "furo"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]  # mermaid is drawn by whoever shows it
