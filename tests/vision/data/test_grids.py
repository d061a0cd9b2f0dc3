"""Pictures of many images: which image is where."""

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from sleepkit.vision.data.grids import named_rows, save_grid


def test_a_grid_has_a_row_for_each_class(tmp_path):
    images = torch.full((3, 3, 4, 6), 200, dtype=torch.uint8)
    save_grid([images[:2], images], tmp_path / "dreams" / "one.png")
    found = np.array(Image.open(tmp_path / "dreams" / "one.png"))[::2, ::2]
    assert found.shape == (2 * 5 + 1, 3 * 7 + 1, 3)
    assert found[1:5, 15:21].max() == 0 and found[6:10, 15:21].min() == 200  # the first row has two images, the other three


def test_named_rows_show_each_image_and_frame_those_that_are_named():
    rows = {"dark": torch.zeros(3, 1, 8, 8), "bright": torch.ones(3, 3, 4, 4)}
    seen = []
    for framed in ((), {("bright", 1)}):
        canvas = FigureCanvasAgg(named_rows(rows, framed))
        canvas.draw()
        seen.append(np.asarray(canvas.buffer_rgba())[..., :3].astype(int))
    plain, marked = seen
    height, width = plain.shape[:2]
    assert plain[height // 4, -60].max() == 0 and plain[3 * height // 4, -60].min() == 255
    changed = (plain != marked).any(2)
    left = round(width * (1.15 + 0.8) / (1.15 + 3 * 0.8 + 0.05))
    assert changed.any() and not changed[: height // 2 - 10].any() and not changed[:, : left - 10].any()  # the second of three
    red = marked[changed]
    assert (red[:, 0] > red[:, 2]).mean() > 0.9
