"""The rows of one unit: which scores they allow and which x they leave, against the formulas."""

import highspy
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.neurons import formulation
from graphprune.neurons.chain import MaxPool
from graphprune.neurons.formulation import Value
from graphprune.neurons.rows import Rows

NUMBER = st.floats(-3, 3, allow_nan=False).map(lambda value: round(value, 3))


def solved(rows: Rows, goal: np.ndarray) -> tuple[str, np.ndarray]:
    """Maximise the sum of the columns `goal`."""
    lp = rows.program()
    cost = np.zeros(rows.columns)
    cost[goal] = -1.0
    lp.col_cost_ = cost
    whole = rows.bounds()[3].astype(bool)
    kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
    lp.integrality_ = [kinds[int(w)] for w in whole]
    solver = highspy.Highs()
    for option, value in {"output_flag": False, "presolve": "off", "primal_feasibility_tolerance": 1e-9}.items():
        solver.setOptionValue(option, value)
    solver.passModel(lp)
    solver.run()
    return solver.modelStatusToString(solver.getModelStatus()), np.array(solver.getSolution().col_value)


def unit(form, h: float, low: float, high: float, s: float, known: bool) -> tuple[str, float]:
    """A unit whose h is a number, or a column held at it."""
    rows = Rows()
    score = rows.variables((1, 1), s, s)
    value = Value(known=np.array([[h]])) if known else Value(columns=rows.variables((1, 1), h, h))
    x, _ = form(rows, value, score, np.array([[low]]), np.array([[high]]))
    status, found = solved(rows, x.columns.ravel())
    return status, found[x.columns.ravel()][0] if status == "Optimal" else np.nan


@settings(max_examples=80, deadline=None)
@given(a=NUMBER, b=NUMBER, part=st.floats(0, 1), s=st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]))
def test_exact_rows_leave_the_formula_and_forbid_no_score(a, b, part, s):
    low, high = min(a, b), max(a, b) + 0.01
    h = low + part * (high - low)
    status, x = unit(formulation.exact, h, low, high, s, known=False)
    assert status == "Optimal"
    assert x == pytest.approx(max(0.0, h - (1 - s) * max(high, 0)), abs=1e-6)


@settings(max_examples=120, deadline=None)
@given(a=NUMBER, b=NUMBER, part=st.floats(0, 1), s=st.floats(0, 1), known=st.booleans())
def test_published_rows_allow_exactly_the_scores_of_the_formula(a, b, part, s, known):
    low, high = min(a, b), max(a, b) + 0.01
    h, cap = low + part * (high - low), max(high, 0)
    lowest = 1 - (h - min(low, 0)) / cap if cap > 0 else 0.0
    if abs(s - lowest) < 1e-3:  # too near to tell
        return
    status, x = unit(formulation.published, h, low, high, s, known)
    assert (status == "Optimal") == (s >= lowest)
    if status == "Optimal":
        assert x == pytest.approx(max(0.0, h - (1 - s) * cap), abs=1e-6)


def test_a_known_point_needs_no_gate():
    rows = Rows()
    s = rows.variables((1, 1), 0.25, 0.25)
    h = np.array([[2.0]])
    x, gates = formulation.exact(rows, Value(known=h), s, h, h)
    assert gates.columns.size == 0
    assert solved(rows, x.columns.ravel())[1][x.columns.ravel()] == pytest.approx([0.5])


@pytest.mark.parametrize(("h", "x"), [(-0.4, 0.0), (0.7, 0.7)])
def test_an_unscored_relu(h, x):
    rows = Rows()
    column = rows.variables((1, 1), h, h)
    out, gates = formulation.relu(rows, Value(columns=column), np.array([[-1.0]]), np.array([[1.0]]))
    assert gates.columns.size == 1
    assert solved(rows, out.columns.ravel())[1][out.columns.ravel()] == pytest.approx([x])


def test_a_layer_without_a_relu_is_shifted():
    rows = Rows()
    s = rows.variables((1, 1), 0.5, 0.5)
    x = formulation.shifted(rows, Value(known=np.array([[1.0]])), s, np.array([[3.0]]))
    assert solved(rows, x.columns.ravel())[1][x.columns.ravel()] == pytest.approx([-0.5])


@pytest.mark.parametrize("valid", [True, False])
def test_a_pooling_gives_the_largest_input(valid):
    draw = np.random.default_rng(0)
    h = draw.normal(size=(2, 9))
    rows = Rows()
    columns = rows.variables(h.shape, h, h)
    op = MaxPool((2, 2), (1, 1), False)
    low, high = h - draw.random(h.shape), h + draw.random(h.shape)
    out, gates = formulation.max_pool(rows, op, Value(columns=columns), low, high, torch.Size([1, 3, 3]), valid)
    expected = op(torch.from_numpy(h).reshape(2, 1, 3, 3)).flatten(1).numpy()
    found = solved(rows, out.columns.ravel())[1][out.columns]
    assert np.allclose(found, expected, atol=1e-6)
    assert gates.columns.size == 2 * 4 * 4 if not valid else gates.columns.size < 2 * 4 * 4


def test_known_values_stay_known():
    rows, h = Rows(), np.array([[1.0, -2.0, 3.0, 0.5]])
    assert formulation.relu(rows, Value(known=h), h, h)[0].known.tolist() == [[1, 0, 3, 0.5]]
    pooled = formulation.max_pool(rows, MaxPool((2, 2), (2, 2), False), Value(known=h), h, h, torch.Size([1, 2, 2]), True)
    assert pooled[0].known.tolist() == [[3]]
    assert rows.columns == 0
