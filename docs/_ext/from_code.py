"""Directives that fill the reference from the code itself: public names, options of commands, options of parts."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
from importlib import import_module
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.directives.code import LiteralInclude
from sphinx.errors import PycodeError
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import diffspace
from diffspace import config, parts
from diffspace.cli.app import LazyCommand, app as command_line

_EXPORTS = re.compile(r"\b(\w+) as \1\b|^(\w+)(?:: [^=\n]+)? = ", re.MULTILINE)
_DEFINITIONS = re.compile(r"^(?:(?:def|class) (\w+)|(\w+)(?:: [^=\n]+)? = )", re.MULTILINE)


def public_names(package: str) -> dict[str, Any]:
    """The names that a package exports, or that a module defines, in their order, without modules."""
    module = import_module(package)
    pattern = _EXPORTS if hasattr(module, "__path__") else _DEFINITIONS
    found = ["".join(groups) for groups in pattern.findall(inspect.getsource(module))]
    public = {name: getattr(module, name) for name in found if not name.startswith("_")}
    return {name: thing for name, thing in public.items() if not inspect.ismodule(thing)}


class PublicNames(SphinxDirective):
    """Documents the names that a package exports, under `diffspace.` where they can be had there."""

    required_arguments = 1
    option_spec: ClassVar = {"names": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        package = self.arguments[0]
        names = self.options["names"].split() if "names" in self.options else list(public_names(package))
        lines = []
        for name in names:
            thing = getattr(import_module(package), name)
            place = "diffspace" if getattr(diffspace, name, None) is thing else package
            kind = "class" if inspect.isclass(thing) else "function" if inspect.isfunction(thing) else "data"
            lines += [f".. auto{kind}:: {place}.{name}"]
            lines += [*{"class": ["   :members:"], "data": ["   :no-value:"]}.get(kind, []), ""]
        return self.parse_text_to_nodes("\n".join(lines))


def commands() -> dict[str, Any]:
    """Every command by its words, such as "data prepare"."""
    found = {}
    for name, lazy in command_line().commands.items():
        command = lazy.load() if isinstance(lazy, LazyCommand) else lazy
        inner = getattr(command, "commands", None)
        found |= {f"{name} {word}": each for word, each in inner.items()} if inner else {name: command}
    return found


def option_panels(command: Any) -> dict[str, list[tuple[str, str]]]:
    """The lines of a command's --help by their panel."""
    import typer

    context = typer.Context(command, info_name=command.name)
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[0] != "--help":
            general = "Arguments" if parameter.param_type_name == "argument" else "Options"
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or general, []).append(record)
    return panels


def _entry(term: str, text: str, anchor: str) -> nodes.Node:
    """A term in code and what it means, with a target."""
    line = nodes.term("", "", nodes.literal("", term), ids=[nodes.make_id(anchor)])
    return nodes.definition_list_item("", line, nodes.definition("", nodes.paragraph("", text)))


class EveryCommand(SphinxDirective):
    """A section for each command: what it does, and its arguments and options by panel."""

    def run(self) -> list[nodes.Node]:
        return [self._section(words, command) for words, command in commands().items()]

    def _section(self, words: str, command: Any) -> nodes.Node:
        made: list[nodes.Node] = [nodes.paragraph("", text) for text in inspect.cleandoc(command.help).split("\n\n")]
        for panel, records in option_panels(command).items():
            entries = [_entry(term, text, f"{words} {re.split('[ ,]', term)[0]}") for term, text in records]
            made += [nodes.rubric("", panel), nodes.definition_list("", *entries, classes=["options"])]
        section = nodes.section("", nodes.title("", words), *made, ids=[nodes.make_id(words)], names=[words])
        self.state.document.note_implicit_target(section)
        return section


def part_options(make: Any) -> list[tuple[str, str]]:
    """(key = default, explanation) for each option of a part."""
    known = config.explanations(make)
    lines = []
    for name, parameter in inspect.signature(make).parameters.items():
        if name == "self" or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = "" if parameter.default is parameter.empty else f" = {_word(parameter.default)}"
        lines.append((name + default, known.get(name, "")))
    return lines


def _word(value: Any) -> str:
    simple = value is None or isinstance(value, bool | int | float | str | tuple)
    return {None: "null", True: "true", False: "false"}.get(value, str(value)) if simple else "…"


class PartOptions(SphinxDirective):
    """The kinds of a family with their options; or, for `module:Class`, the options of a class."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if ":" in name:
            return [self._list(name, parts.load_path(name))]
        made: list[nodes.Node] = []
        for kind, place in parts.FAMILIES[name].items():
            make = parts.load_path(place) if isinstance(place, str) else place
            summary = (inspect.getdoc(make) or "").split("\n\n")[0].replace("\n", " ").replace("`", "")
            made += [nodes.rubric("", "", nodes.literal("", kind)), nodes.paragraph("", summary)]
            made.append(self._list(f"{name}-{kind}", make))
        return made

    def _list(self, anchor: str, make: Any) -> nodes.Node:
        entries = [_entry(term, text, f"{anchor}-{term.split()[0]}") for term, text in part_options(make)]
        return nodes.definition_list("", *entries, classes=["options"])


def _constant(name: str, value: Any) -> list[str]:
    """What stands below a constant in the module that defines it."""
    for module in [module for path, module in sys.modules.items() if path.startswith("diffspace")]:
        if vars(module).get(name) is value:
            with contextlib.suppress(PycodeError):
                if said := ModuleAnalyzer.for_module(module.__name__).find_attr_docs().get(("", name)):
                    return list(said)
    return []


def plain(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with `names` in it: what reStructuredText takes for marks is kept as it stands."""
    if what == "data":
        lines[:] = _constant(name.rpartition(".")[2], thing)
    code = False
    for number, line in enumerate(lines):
        code = line.startswith("    ") and (code or (number > 1 and lines[number - 2].endswith("::")))
        if code or line.lstrip().startswith(">>>"):
            continue
        pieces = re.split(r"(``[^`]+``|`[^`]+`)", line)
        pieces[::2] = [re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", text) for text in pieces[::2]]
        lines[number] = "".join(pieces)


class source_link(nodes.Element):
    """The place of a link to what `module` defines as `name`, until it is known which modules have pages."""


class Excerpt(LiteralInclude):
    """`literalinclude`; below an object of diffspace it has a link to the page of its source."""

    def run(self) -> list[nodes.Node]:
        made = super().run()
        if (found := re.search(r"/src/(diffspace/.*)\.py$", self.arguments[0])) and "pyobject" in self.options:
            made.append(source_link(module=found[1].replace("/", "."), name=self.options["pyobject"]))
        return made


def resolve_source_links(app: Any, doctree: nodes.Node, docname: str) -> None:
    """Links to the pages of viewcode, which have an anchor for each object that the reference documents."""
    for link in list(doctree.findall(source_link)):
        module, name = link["module"], link["name"]
        entry = getattr(app.env, "_viewcode_modules", {}).get(module)
        if app.builder.format != "html" or not entry:
            if app.builder.format == "html":
                logging.getLogger(__name__).warning("no page has the source of %s", module, location=docname)
            link.parent.remove(link)
            continue
        anchor = name
        while anchor and anchor not in entry[2]:  # of what is not public, the class
            anchor = anchor.rpartition(".")[0]
        place = app.builder.get_relative_uri(docname, "_modules/" + module.replace(".", "/"))
        text = nodes.literal("", f"{name} in {module.replace('.', '/')}.py")
        reference = nodes.reference("", "", text, refuri=f"{place}#{anchor}" if anchor else place, internal=True)
        link.replace_self(nodes.paragraph("", "", reference, classes=["source-of"]))


def without_marks(app: Any, docname: str, source: list[str]) -> None:
    """What tests have to know of a block, readers need not: `# not run in tests: reason` is shown as `# reason`."""
    source[0] = re.sub(r"^# not run in tests: ", "# ", source[0], flags=re.MULTILINE)


def setup(app: Any) -> dict[str, Any]:
    app.add_node(source_link)
    app.add_directive("literalinclude", Excerpt, override=True)
    app.connect("source-read", without_marks)
    app.connect("doctree-resolved", resolve_source_links)
    app.add_directive("public-names", PublicNames)
    app.add_directive("every-command", EveryCommand)
    app.add_directive("part-options", PartOptions)
    app.connect("autodoc-process-docstring", plain, priority=400)  # before napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
