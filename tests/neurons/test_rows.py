"""Rows and columns of a program, by hand."""

import highspy
import numpy as np
import pytest
from scipy import sparse

from graphprune.neurons.rows import Rows


def test_rows_are_what_was_said():
    rows = Rows()
    x = rows.variables((2,), 0.0, [1.0, 2.0], cost=-1.0)
    v = rows.variables((1,), 0, 1, whole=True)
    rows.add([(x, 1.0), (v, [-1.0, -2.0])], -np.inf, 0.0)
    rows.sums(sparse.csr_array(np.ones((1, 2))), x, 1.5)
    assert rows.matrix().toarray().tolist() == [[1, 0, -1], [0, 1, -2], [1, 1, 0]]
    assert rows.sides()[1].tolist() == [0, 0, 1.5]
    assert [part.tolist() for part in rows.bounds()] == [[0, 0, 0], [1, 2, 1], [-1, -1, 0], [0, 0, 1]]


def test_affine_rows_tie_outputs_to_inputs():
    rows = Rows()
    x = rows.variables((2, 2), [[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 4.0]])
    y = rows.variables((2, 1), -np.inf, np.inf, cost=1.0)
    rows.affine(y, sparse.csr_array([[10.0, 1.0]]), x, [0.5])
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.passModel(rows.program())
    solver.run()
    assert np.array(solver.getSolution().col_value)[y].ravel() == pytest.approx([12.5, 34.5])
