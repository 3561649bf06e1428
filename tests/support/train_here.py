"""Train as one of several processes: RECIPE.json FOLDER STRATEGY [resume]; a report after each step."""

import json
import sys
from pathlib import Path

from diffspace.train import Processes, Run, make_recipe

if __name__ == "__main__":
    recipe = make_recipe(json.loads(Path(sys.argv[1]).read_text()))
    training, held_out = recipe.data.load()
    with Processes.join("cpu", sys.argv[3]) as processes:
        run = Run(recipe, training, Path(sys.argv[2]), held_out=held_out, processes=processes, report_seconds=0)
        if "resume" in sys.argv:
            run.resume()
        else:
            run.begin()
        for _ in run.train():
            pass
