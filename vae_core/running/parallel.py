"""Who does the work on a clip: one device, several of this process (see `crew`), or a group of
processes (see `shared`)?
"""

from __future__ import annotations

from functools import partial

from ..planning.plan import Job, Plan
from ..settings import Settings
from .agreement import agreed
from .crew import Crew, plan_together
from .exchange import exchange_for
from .execute import Execution
from .machines import Network, plan_on
from .shared import Report, SharedExecution
from .weights import Weights


def plan_for(network: Network, job: Job, settings: Settings, probing: bool) -> Plan:
    """The plan for a job, see `make_plan`; one that all ranks agree on where a run follows.

    probing: whether one does, see `machine_for`. Raises `SettingsError` where ranks were asked for
    different things, or devices cannot share a run.
    """
    if settings.devices:
        return plan_together(network, job, settings, probing)
    make = partial(plan_on, network, job, probing=probing)
    if settings.ranks == 1 or not probing:
        return make(settings)
    return agreed(make, settings, network)


def execution_for(plan: Plan, weights: Weights, report: Report | None) -> Execution | Crew:
    """What runs a plan: all of it, or a rank's share where it is one of several."""
    settings = plan.settings
    if plan.others:
        return Crew(weights, plan, report)
    if settings.ranks == 1:
        return Execution(plan.job.program, weights, plan, report)
    exchange = exchange_for(settings.parallel, weights.device, settings.parallel_timeout_s)
    return SharedExecution(weights, plan, report, exchange)
