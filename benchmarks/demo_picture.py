"""Draw the picture of the README: what was perceived, and the action agreed upon in the predicted views.

python -m pcm_ros.benchmarks.demo_picture --scene 5 --out docs/demo.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from pcm_ros.benchmarks.manipulation import VIEW_ORDER
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.tasks.manipulation.assembly import build_policy
from pcm_ros.tasks.manipulation.policy_events import Chosen
from pcm_ros.tasks.manipulation.recording import annotate, draw_action
from pcm_ros.tasks.manipulation.world_model import world_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/demo.png"))
    options = parser.parse_args()
    cell = SimWorkcell("demo", seed=options.scene)
    policy = build_policy(cell, VIEW_ORDER)
    chosen = next(event for event in policy.run(cell.episode.instruction, seed=0) if isinstance(event, Chosen))
    world = world_model(chosen.context)
    seen, predicted = [], []
    for view in chosen.context.observation.views:
        seen.append(annotate(view, world))
        image = world.predict_image(view.name, chosen.category, chosen.motion)
        draw_action(image, view, chosen.action)
        predicted.append(image)
    picture = np.vstack([np.hstack(seen), np.hstack(predicted)])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(options.out), picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(options.out)


if __name__ == "__main__":
    main()
