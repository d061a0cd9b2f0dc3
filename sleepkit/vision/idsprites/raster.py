"""Exact area coverage of polygons, batched: the anti-aliased rasteriser.

    ends (2 ends, 2 axes, N, P) float32, pixels; pixel edges lie at whole numbers   ->   coverage (polygons, size, size) in [0, 1]

The area of a polygon is a signed sum over its segments: of the strip between each segment and the bottom of the image.  A
segment of width dx inside one pixel covers dx (1 - f) of that pixel, f being how deep its middle lies, and dx of each pixel
below.  So it adds dx (1 - f) to its own row and dx f to the next, and a running sum down the columns gives the signed area
of the polygon in every pixel.  Segments are cut at pixel edges first, which makes this exact.  The technique is that of font
rasterisers (FreeType's smooth rasteriser, font-rs, stb_truetype 2); ours is the batched form.

Signed areas are folded by the even-odd rule, as OpenCV's `fillPoly` fills: a doubly enclosed part is a hole (in pixels where an
outline crosses itself this is not exact).  Differentiable with respect to the ends.  Each image is the same whatever else is in
the batch.  On CUDA the terms of a sum are added in no fixed order, so last bits may differ between runs.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["coverage"]


def coverage(ends: Tensor, polygon: Tensor, polygons: int, size: int) -> Tensor:
    """Share of each pixel that closed polygons cover, ``(polygons, size, size)``: a view of rows that lie apart in memory.

    Args:
        ends: ``(2 ends, 2 axes, N, P)``, of segments of at most one pixel in length, in any order. A segment of length 0
            adds nothing.
        polygon: ``(N, P)`` float32, which polygon each segment bounds.
        polygons: their number.
        size: height and width of the images, pixels. Places are counted in float32: ``polygons * (size + 2)**2`` is at
            most 2**24.
    """
    start, end = ends
    along = end - start  # (2 axes, N, P)
    edge = torch.maximum(start.floor(), end.floor())  # the one pixel edge that may lie between the ends
    cut = ((edge - start) / torch.where(along == 0, 1, along)).clamp(0, 1)  # 0 or 1 if it does not
    first, second = torch.minimum(cut[0], cut[1]), torch.maximum(cut[0], cut[1])
    area = ends.new_zeros((size + 2) * polygons * size)  # rows outermost, so that the running sum adds long vectors
    before = start.clamp(0, size)  # beyond the left and right edges nothing is left of dx; above the image all rows are below
    for after in (start + first * along, start + second * along, end):  # one third at a time, which stays in the cache
        after = after.clamp(0, size)
        dx, middle = after[0] - before[0], (before + after) * 0.5  # (N, P), (2 axes, N, P)
        column, row = middle.detach().floor()
        in_next_row = dx * (middle[1] - row)
        place = ((row * polygons + polygon) * size + column.clamp_(max=size - 1)).long().flatten()
        area.scatter_add_(0, place, (dx - in_next_row).flatten())
        area.scatter_add_(0, place + polygons * size, in_next_row.flatten())
        before = after
    area = area.view(size + 2, polygons, size)[:size]
    if area.requires_grad or area.is_cuda:
        area = 1 - (1 - area.cumsum(0).abs()).abs()
    else:
        rows = area.unbind(0)
        for above, below in zip(rows, rows[1:], strict=False):  # thirty times as fast as cumsum on CPU
            below.add_(above)
        torch.sub(torch.ones(()), area.abs_().sub_(1).abs_(), out=area)
    return area.permute(1, 0, 2)
