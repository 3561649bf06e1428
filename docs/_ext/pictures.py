"""Pictures in two themes: NAME.png is shown in light pages and dark/NAME.png, where there is one, in dark pages."""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.transforms import SphinxTransform


class Themes(SphinxTransform):
    """Puts the dark version of a picture beside it; furo shows one of them."""

    default_priority = 200  # before the files of pictures are collected

    def apply(self, **options: Any) -> None:
        for image in list(self.document.findall(nodes.image)):
            path = Path(image["uri"])
            dark = path.parent / "dark" / path.name
            if "://" in image["uri"] or not image["uri"]:
                continue
            if not (Path(self.document["source"]).parent / dark).is_file():
                image["classes"].append("one-theme")
                continue
            copy = image.deepcopy()
            copy["uri"] = dark.as_posix()
            image["classes"].append("only-light")
            copy["classes"].append("only-dark")
            image.parent.insert(image.parent.index(image) + 1, copy)


def setup(app: Any) -> dict[str, Any]:
    app.add_transform(Themes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
