"""What a solve says of itself: optimal, relaxed, out of time, infeasible; and the second try without presolve."""

import highspy
import numpy as np
import pytest
import torch
from tiny_programs import Parts, fc, images

from graphprune.neurons import solver

Y = torch.tensor([0, 1])


def parts(seed: int = 0) -> Parts:
    return Parts(fc(seed, 2, 3, 2, 2), images(seed, 2, 2), Y, "exact", 2.0, 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_relaxation_bound_optimum_and_start_stand_in_order(seed):
    p = parts(seed)
    relaxed, solved = p.solve(relax=True), p.solve()
    assert (relaxed.status, solved.status) == ("relaxation", "optimal")
    assert relaxed.bound <= solved.bound + 1e-6 <= solved.objective + 2e-3 <= p.objective(p.start()[0]) + 4e-3
    assert solved.objective - solved.bound <= 3e-3
    assert p.objective(solved.s) == pytest.approx(solved.objective)


def test_no_time_is_no_optimum():
    p = parts()
    found = solver.solve(p.program, p.objective, p.start(), 2.0, 1e-9)
    assert found.status == "time limit"
    assert found.bound == -np.inf
    assert found.s[0].tolist() == [1, 1, 1]


def test_an_infeasible_program_is_tried_again_without_presolve_and_then_refused(monkeypatch):
    tried = []
    original = highspy.Highs.setOptionValue
    monkeypatch.setattr(highspy.Highs, "setOptionValue", lambda self, *a: tried.append(a) or original(self, *a))
    p = parts()
    p.program.rows.add([(p.program.s[0], 1.0)], 2.0, 3.0)
    with pytest.raises(RuntimeError, match=r"HiGHS ends with 'Infeasible', also without presolve"):
        p.solve()
    assert ("presolve", "off") in tried


def test_a_false_infeasible_of_presolve_is_solved_without_it(monkeypatch):
    """Narrow bounds have misled presolve; here its answer is made up once."""
    answers = [highspy.HighsModelStatus.kInfeasible]
    original = highspy.Highs.getModelStatus
    monkeypatch.setattr(highspy.Highs, "getModelStatus", lambda self: answers.pop() if answers else original(self))
    found = parts().solve()
    assert found.status == "optimal"
    assert found.retried == 1


def test_an_unbounded_program_is_refused():
    p = parts()
    p.program.rows.variables((1,), 0.0, np.inf, cost=-1.0)
    p_start = p.start()
    with pytest.raises(RuntimeError, match=r"Unbounded|Primal infeasible or unbounded"):
        solver.solve(p.program, p.objective, p_start, 2.0, 10.0)
