"""The sections of a report: each function `show_...` returns the content of one, or `Absent` and the reason."""
