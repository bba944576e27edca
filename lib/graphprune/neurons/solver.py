"""A program solved by HiGHS: tangents added round by round, first without and then with whole numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import highspy
import numpy as np
import torch
from torch import Tensor

from graphprune.neurons import cuts
from graphprune.neurons.formulation import Array
from graphprune.neurons.program import Program

ROUNDS = 60
TOLERANCE = 1e-3  # of the objective: how much the tangents may be too low at the end, and the gap HiGHS may leave
STATES = {
    highspy.HighsModelStatus.kOptimal: "optimal",
    highspy.HighsModelStatus.kTimeLimit: "time limit",
    highspy.HighsModelStatus.kInfeasible: "infeasible",
    highspy.HighsModelStatus.kUnboundedOrInfeasible: "infeasible",
    highspy.HighsModelStatus.kUnbounded: "unbounded",
}


@dataclass(frozen=True, eq=False)
class Solution:
    """What came of a program.

    Attributes:
        status: "optimal": of the program. "relaxation": optimal with gates anywhere between 0 and 1. "time limit": neither.
        s: the scores of lowest objective seen; objective: theirs, by a run of the network.
        bound: no feasible scores have an objective below this (-inf: nothing is known).
        rounds, cuts: of tangents. retried: runs that presolve called infeasible and that were run again without it.
    """

    status: str
    s: list[Tensor]
    objective: float
    bound: float
    rounds: int
    cuts: int
    retried: int


def solve(
    program: Program,
    objective: Callable[[Sequence[Tensor]], float],
    start: tuple[list[Tensor], Array],
    lam: float,
    time_limit: float,
    *,
    relax: bool = False,
    feasible: bool = True,
) -> Solution:
    """Solve a program to `TOLERANCE`, or until the time is up.

    Args:
        objective: of scores, by a run of the network.
        start: feasible scores and their point; what HiGHS starts from, and what is returned if nothing better is found.
        time_limit: wall-clock seconds of all rounds.
        relax: leave the gates free between 0 and 1.
        feasible: whether all scores in [0, 1] are feasible, so that those of a relaxation count as found.
    Raises:
        RuntimeError: HiGHS calls the program infeasible (also without presolve) or unbounded, or fails.
    """
    relax = relax or len(program.whole) == 0
    run = _Run(program, objective, start, lam, time.monotonic() + time_limit, relax, feasible)
    status = run.rounds_of(whole=False)
    if len(program.whole) == 0:
        return run.solution(status)
    if relax or status != "optimal":
        return run.solution("relaxation" if status == "optimal" else status)
    return run.solution(run.rounds_of(whole=True))


class _Run:
    """The state between rounds: HiGHS, the best scores and the best bound."""

    def __init__(
        self,
        program: Program,
        objective: Callable[[Sequence[Tensor]], float],
        start: tuple[list[Tensor], Array],
        lam: float,
        deadline: float,
        relax: bool,
        feasible: bool,
    ) -> None:
        self.program, self.objective, self.lam = program, objective, lam
        self.deadline, self.relax, self.feasible = deadline, relax, feasible
        self.s, self.point = start
        self.best, self.bound = objective(self.s), -np.inf
        self.count = self.cuts = self.retried = 0
        self.solver = highspy.Highs()
        for option, value in {"output_flag": False, "threads": 1, "random_seed": 0, "mip_rel_gap": TOLERANCE / 2}.items():
            self.solver.setOptionValue(option, value)
        self.solver.passModel(program.rows.program())
        for share in (1.0, 0.6, 0.3, 0.1):
            self.cuts += cuts.add(self.solver, program, share * self.point[program.z], None, 0.0)[0]

    def rounds_of(self, whole: bool) -> str:
        kind = highspy.HighsVarType.kInteger if whole else highspy.HighsVarType.kContinuous
        columns = self.program.whole.astype(np.int32)
        if len(columns):
            self.solver.changeColsIntegrality(len(columns), columns, np.full(len(columns), int(kind), dtype=np.uint8))
        for _ in range(ROUNDS):
            status, x = self._run(whole)
            if x is None or status != "optimal":
                return status
            added, short = cuts.add(
                self.solver, self.program, x[self.program.z], x[self.program.t], TOLERANCE / 2 / max(self.lam, 1)
            )
            self.cuts += added
            if added == 0 or short * self.lam <= TOLERANCE / 2:
                return "optimal"
        return "time limit"  # of rounds

    def _run(self, whole: bool) -> tuple[str, Array | None]:
        left = self.deadline - time.monotonic()
        if left <= 0:
            return "time limit", None
        self.solver.setOptionValue("time_limit", self.solver.getRunTime() + left)  # HiGHS adds up over runs
        if whole:
            known = highspy.HighsSolution()
            known.col_value = list(self.point)
            known.value_valid = True
            self.solver.setSolution(known)
        status = self._status()
        self.count += 1
        info, found = self.solver.getInfo(), self.solver.getSolution()
        if status == "optimal" or whole:
            reached = info.mip_dual_bound if whole else info.objective_function_value
            self.bound = max(self.bound, reached + self.program.offset)
        if not found.value_valid or (whole and info.primal_solution_status != 2):
            return status, None
        x = np.array(found.col_value)
        if whole or self.feasible or (self.relax and status == "optimal"):
            self._look_at(x, whole)
        return status, x

    def _look_at(self, x: Array, whole: bool) -> None:
        s = [torch.from_numpy(x[columns].clip(0, 1)) for columns in self.program.s]
        now = self.objective(s)
        if now < self.best:
            self.s, self.best = s, now
            if whole:
                self.point = x

    def _status(self) -> str:
        self.solver.run()
        status = self.solver.getModelStatus()
        if STATES.get(status) == "infeasible":  # narrow bounds mislead presolve: it is asked again without
            self.retried += 1
            self.solver.setOptionValue("presolve", "off")
            self.solver.run()
            self.solver.setOptionValue("presolve", "choose")
            status = self.solver.getModelStatus()
        word = STATES.get(status)
        if word not in ("optimal", "time limit"):
            said = self.solver.modelStatusToString(status)
            raise RuntimeError(
                f"HiGHS ends with {said!r}, also without presolve: check the network's weights and the images for very large "
                "numbers; neurons.scores also takes program='exact' or a larger radius"
            )
        return word

    def solution(self, status: str) -> Solution:
        return Solution(status, self.s, self.best, self.bound, self.count, self.cuts, self.retried)
