"""Tangents lie below the exponentials and meet them where they are taken."""

import highspy
import numpy as np
import torch
from tiny_programs import Parts, fc, images

from graphprune.neurons import cuts


def test_losses_are_cross_entropies():
    z = np.array([[0.0, 0.0, 0.0], [1000.0, 0.0, 0.0]])
    assert np.allclose(cuts.losses(z, np.array([0, 0])), [np.log(3), 0])


def test_a_tangent_allows_the_true_point_and_no_lower_loss():
    parts = Parts(fc(0, 2, 3, 2), images(0, 2, 2), torch.tensor([0, 1]), "exact", 5.0, 0.0)
    point = parts.start()[1]
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.passModel(parts.program.rows.program())
    before = solver.getNumRow()
    z, t = point[parts.program.z], point[parts.program.t]
    added, short = cuts.add(solver, parts.program, z, t - 0.5, 1e-3)
    assert abs(short - 0.5) < 1e-9
    assert solver.getNumRow() - before == added > 0
    s = np.concatenate([*parts.program.s]).astype(np.int32)
    solver.changeColsBounds(len(s), s, np.ones(len(s)), np.ones(len(s)))
    solver.run()
    assert np.allclose(np.array(solver.getSolution().col_value)[parts.program.t], t, atol=1e-6)


def test_what_is_tight_gets_no_tangent():
    parts = Parts(fc(0, 2, 3, 2), images(0, 2, 2), torch.tensor([0, 1]), "exact", 5.0, 0.0)
    point = parts.start()[1]
    added, short = cuts.add(highspy.Highs(), parts.program, point[parts.program.z], point[parts.program.t], 1e-6)
    assert added == 0
    assert abs(short) < 1e-9
