"""Infinite dSprites: shapes without end in known poses, drawn when they are asked for.

    shapes, raster, affine, counter_random        pure functions: outlines, coverage, matrices, random numbers
    factors, base_renderer, renderer, reference   which images there are, and how they are drawn
    dataset, stream, export, sheet                data sets, the continual stream, parquet and Hub, a picture of it all

Source: "Infinite dSprites for Disentangled Continual Learning" (arXiv 2312.16731).
"""
