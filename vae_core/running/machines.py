"""On what will a program run, by which routes, and with what allowance for libraries?

1. What a probe found about the device is looked up: in this process, else in its file.
2. A run has the classes of its program probed that are not in it (`probe`), once and for good; a
   mere plan takes careful figures for them.
3. Where the device computes something wrongly and has no other route, the machine is the processor.
4. What a run saw to be too little is raised, here and in the file (`feedback`).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import lru_cache
from threading import RLock
from typing import Protocol

import torch
from torch import nn

from ..planning import machine
from ..planning.classes import classes_of
from ..planning.machine import Machine
from ..planning.plan import Job, Plan
from ..planning.planner import make_plan
from ..planning.rates import rates_of
from ..planning.routes import Table, words_of
from ..planning.workspaces import ConvClass
from ..program.steps import Program
from ..settings import Settings
from . import cards, probe_file
from .autocast import no_autocast
from .cards import Card
from .devices import is_integrated, unsearched
from .probe import probe
from .recovery import is_out_of_memory
from .weights import Lender, Weights, has_far_kernels

_LOG = logging.getLogger("vae_core")
_PROCESSOR = torch.device("cpu")
_lock = RLock()
_tables: dict[frozenset[tuple[str, str]], Table] = {}


def forget() -> None:
    """Know nothing of any device but what is in files."""
    with _lock:
        _tables.clear()
        _say_refused.cache_clear()


def machine_for(
    device: torch.device, dtype: torch.dtype, program: Program, probing: bool = False
) -> Machine:
    """The machine that `program` runs on when it is sent to `device`: the processor's where the
    device cannot run it, and then `refused` says why.

    probing: whether a run follows, for which what is not known yet is found out.
    """
    card = cards.card_for(device)
    if card is None:
        return machine.machine_for(device, is_integrated(device))
    with _lock:
        table = _completed(card, dtype, program) if probing else _known(card, dtype)
    refused = table.impossible(classes_of(program))
    if refused:
        _say_refused(card.title(), refused)
        alone = machine.machine_for(_PROCESSOR)
        return replace(alone, title=card.title(), refused=refused)
    found = machine.machine_for(device, is_integrated(device))
    rates = rates_of(table, program)
    return replace(found, title=card.title(), table=table, workspaces=table.workspaces, rates=rates)


@lru_cache(maxsize=64)
def _say_refused(title: str, refused: str) -> None:
    """Say it once."""
    _LOG.warning("runs on the processor, since %s is wrong in %s", title, refused)


def device_of(device: torch.device, refused: str) -> torch.device:
    """Where a run is that is meant for `device`: on the processor where that was `refused`."""
    return _PROCESSOR if refused else device


class Network(Protocol):
    """What has weights to run with."""

    @property
    def module(self) -> nn.Module: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def lender(self) -> Lender | None: ...


def runs_on(network: Network, plan: Plan) -> torch.device:
    """Where a network's run of `plan` is."""
    return device_of(network.device, plan.libraries.refused if plan.libraries else "")


def plan_on(network: Network, job: Job, settings: Settings, probing: bool) -> Plan:
    """The plan for a job on the device of a network, see `make_plan`; probing: see `machine_for`.
    Whether weights have far to go is found out here.
    """
    machine = machine_for(network.device, network.dtype, job.program, probing)
    device = device_of(network.device, machine.refused)
    far = has_far_kernels(network.module, network.dtype, device)
    return make_plan(replace(job, far_weights=far), settings, machine)


def weights_for(network: Network, plan: Plan) -> Weights:
    """The weights of a network for a run of `plan`, on the device that the plan is for, with the
    routes of its convolutions.
    """
    device, dtype = runs_on(network, plan), network.dtype
    card = cards.card_for(device)
    routes = _known(card, dtype).routes if card else {}
    return Weights(network.module, dtype, device, lender=network.lender, routes=routes)


def raise_allowance(
    card: Card, dtype: torch.dtype, kind: ConvClass, missing_bytes: int, data_bytes: int
) -> None:
    """A convolution of a class that read and wrote `data_bytes` took so much more than allowed."""
    facts = card.facts(dtype)
    with _lock:
        table = _known(card, dtype).with_raised(kind, missing_bytes, data_bytes)
        _tables[_key(facts)] = table
        probe_file.write(facts, table)


def raised_since(device: torch.device, dtype: torch.dtype, plan: Plan) -> list[str]:
    """What to tell a person of allowances that were raised since `plan` was made."""
    card = cards.card_for(device)
    if card is None or plan.libraries is None:
        return []
    now, before = _known(card, dtype).raised, plan.libraries.raised
    return [
        f"libraries of {plan.libraries.device} took more memory than was allowed them for"
        f" {words_of(kind)}; more is allowed from now on."
        for kind in sorted(classes_of(plan.job.program), key=repr)
        if kind in now and now[kind] != before.get(kind)
    ]


def _key(facts: probe_file.Facts) -> frozenset[tuple[str, str]]:
    return frozenset(facts.items())


def _known(card: Card, dtype: torch.dtype) -> Table:
    facts = card.facts(dtype)
    with _lock:
        found = _tables.get(_key(facts))
        if found is None:
            found = _tables[_key(facts)] = probe_file.read(facts) or Table(card.title())
        return found


def _completed(card: Card, dtype: torch.dtype, program: Program) -> Table:
    """What is known, once all classes of a program have been tried."""
    known, kinds = _known(card, dtype), classes_of(program)
    if kinds <= known.found.keys():
        return known
    _LOG.info("trying the convolutions of %s in %s, once", card.title(), dtype)
    try:
        with torch.inference_mode(), no_autocast(card.device), unsearched(card.device):
            table = probe(card, dtype, known, kinds)
    except Exception as error:  # a run may still do
        level = logging.INFO if is_out_of_memory(error) else logging.WARNING
        _LOG.log(
            level,
            "the convolutions of %s could not be tried (%s): careful figures",
            card.title(),
            error,
        )
        return known
    facts = card.facts(dtype)
    _tables[_key(facts)] = table
    probe_file.write(facts, table)
    return table


def known_table(device: torch.device, dtype: torch.dtype) -> Table | None:
    """What is known of a device in a dtype; None for a processor."""
    card = cards.card_for(device)
    return None if card is None else _known(card, dtype)
