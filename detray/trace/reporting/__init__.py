"""A report to look at: one page that holds a run (docs/report.md)."""
