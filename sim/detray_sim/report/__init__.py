"""What an experiment's results become: tables, summaries, charts, traces, comparisons.

Importing it loads neither matplotlib nor rich.
"""

from detray_sim.report.canvas import Chart
from detray_sim.report.compare import (
    Compared,
    Comparison,
    Paired,
    compare,
    comparison_csv,
    comparison_json,
    comparison_text,
    read_comparison,
)
from detray_sim.report.folder import write_comparison, write_run
from detray_sim.report.gantt import Limits, gantt
from detray_sim.report.perfetto import perfetto_json, trace_items
from detray_sim.report.plots import bytes_chart, comparison_chart, utilisation_chart
from detray_sim.report.scaling import knee, scaling_chart
from detray_sim.report.tables import (
    Summary,
    cluster_label,
    name_table,
    read_result,
    read_tasks_csv,
    read_tasks_json,
    result_json,
    summary,
    summary_json,
    summary_rows,
    summary_text,
    task_table,
    tasks_csv,
    tasks_json,
)
from detray_sim.report.text import ReportError, rich_table, text_table

__all__ = [
    # one run as tables
    "Summary",
    "cluster_label",
    "name_table",
    "read_result",
    "read_tasks_csv",
    "read_tasks_json",
    "result_json",
    "summary",
    "summary_json",
    "summary_rows",
    "summary_text",
    "task_table",
    "tasks_csv",
    "tasks_json",
    # one run as pictures
    "Chart",
    "Limits",
    "bytes_chart",
    "gantt",
    "perfetto_json",
    "trace_items",
    "utilisation_chart",
    # many runs
    "Compared",
    "Comparison",
    "Paired",
    "compare",
    "comparison_chart",
    "comparison_csv",
    "comparison_json",
    "comparison_text",
    "knee",
    "read_comparison",
    "scaling_chart",
    # files and terminals
    "ReportError",
    "rich_table",
    "text_table",
    "write_comparison",
    "write_run",
]
