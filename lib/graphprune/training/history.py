"""What a training tells of its epochs: rows that can be looked at as a table and drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class History(list[dict[str, float]]):
    """One row an epoch, as `train.fit` returns them: a list, with a table and a picture.

    >>> History([{"epoch": 1.0, "loss": 2.0, "accuracy_train": 0.5}]).frame()
       epoch  loss  accuracy_train
    0    1.0   2.0             0.5
    """

    def frame(self) -> pd.DataFrame:
        """The rows as a pandas table."""
        import pandas as pd

        return pd.DataFrame(list(self))

    def plot(self) -> Figure:
        """Loss and accuracy against epochs, side by side."""
        from matplotlib import pyplot as plt

        rows = self.frame()
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
        for axis, kind in zip(axes, ("loss", "accuracy"), strict=True):
            for name in rows.columns:
                if name.startswith(kind):
                    axis.plot(rows["epoch"], rows[name], marker="o", label="validation" if name.endswith("val") else "training")
            axis.set(xlabel="epochs", ylabel=kind)
            axis.legend()
        plt.close(figure)  # the caller shows it, once
        return figure
