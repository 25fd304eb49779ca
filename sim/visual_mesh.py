"""Visual shapes from triangles, without PyBullet's leak of its arguments."""

from __future__ import annotations

from collections.abc import Sequence

import pybullet

Rows = Sequence[Sequence[float]]

# PyBullet (3.2.7) keeps references to the lists that createVisualShape gets, and to the rows and numbers in them, for ever: a megabyte for
# each bowl. So it gets the same lists each time, filled anew.
_vertices: list[list[float]] = []
_normals: list[list[float]] = []
_corners: list[int] = []
_arguments: tuple[list[list[float]], list[int], list[list[float]], list[list[float]]] = ([], [], [], [])
_NO_TEXTURE = [0.0, 0.0]


def visual_mesh(client: int, vertices: Rows, normals: Rows, rgba: Sequence[float], specular: Sequence[float]) -> int:
    """Hand triangles to PyBullet; returns the shape's id.

    Args:
        vertices: (3 T, 3) metres, three corners for each of T triangles. normals: (3 T, 3) unit vectors.
        rgba: colour and opacity 0..1. specular: reflected colour 0..1.
    """
    count = len(vertices)
    for _ in range(len(_corners), count):
        _vertices.append([0.0, 0.0, 0.0])
        _normals.append([0.0, 0.0, 0.0])
        _corners.append(len(_corners))
    for pool, rows in ((_vertices, vertices), (_normals, normals)):
        for kept, row in zip(pool, rows, strict=False):
            kept[:] = row
    corners, faces, directions, textures = _arguments
    corners[:], faces[:], directions[:] = _vertices[:count], _corners[:count], _normals[:count]
    textures[:] = [_NO_TEXTURE] * count
    return int(
        pybullet.createVisualShape(
            pybullet.GEOM_MESH,
            vertices=corners,
            indices=faces,
            normals=directions,
            uvs=textures,
            rgbaColor=list(rgba),
            specularColor=list(specular),
            physicsClientId=client,
        )
    )
