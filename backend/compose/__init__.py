"""Stacks from Compose files: load → observe → reconcile → plan → execute.

Everything up to the plan is pure or only reads the user's own files; `execute` is the only part that changes anything,
one API call a step. It runs with the user's rights against any Docker engine. Labels and names are docker compose's, so
that either program sees, adopts and ends the other's stacks.

    project = load_project(find_files(".", os.environ))
    observed = await observe(client, project)
    plan = reconcile(project, observed)         # print(plan) says what will be done and why
    report = await execute(client, plan, on_progress)
"""

from __future__ import annotations

from backend.compose.errors import ComposeError, Mark
from backend.compose.execute import Credentials, Progress, Report, execute
from backend.compose.load import check_name, find_files, load_project
from backend.compose.model import Project, Service
from backend.compose.observe import Stack, list_stacks, observe
from backend.compose.observed import Observed, ObservedContainer
from backend.compose.plan import Plan, Step
from backend.compose.reconcile import UpOptions, plan_pull, reconcile
from backend.compose.stopping import plan_down, plan_restart, plan_start, plan_stop

__all__ = [
    "ComposeError",
    "Credentials",
    "Mark",
    "Observed",
    "ObservedContainer",
    "Plan",
    "Progress",
    "Project",
    "Report",
    "Service",
    "Stack",
    "Step",
    "UpOptions",
    "check_name",
    "execute",
    "find_files",
    "list_stacks",
    "load_project",
    "observe",
    "plan_down",
    "plan_pull",
    "plan_restart",
    "plan_start",
    "plan_stop",
    "reconcile",
]
