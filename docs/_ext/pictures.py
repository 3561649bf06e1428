"""Pictures in two themes: NAME.png is shown in light pages and dark/NAME.png, where there is one, in dark pages."""

from pathlib import Path
from typing import Any

from docutils import nodes
from matplotlib.figure import Figure
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


class Figures:
    """Shows the figures of diffspace in the gallery: those that a variable of a block holds, each once."""

    def __repr__(self) -> str:  # part of the configuration, whose changes rebuild the pages
        return "Figures()"

    def __call__(self, block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
        from sphinx_gallery.scrapers import figure_rst

        paths = []
        for figure in block_vars["example_globals"].values():
            # those of pyplot have numbers, and are shown by sphinx-gallery itself
            if not isinstance(figure, Figure) or hasattr(figure, "number") or hasattr(figure, "in_gallery"):
                continue
            paths.append(next(block_vars["image_path_iterator"]))
            figure.savefig(paths[-1], dpi=110)
            figure.in_gallery = True
        return figure_rst(paths, gallery_conf["src_dir"]) if paths else ""


def setup(app: Any) -> dict[str, Any]:
    app.add_transform(Themes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
