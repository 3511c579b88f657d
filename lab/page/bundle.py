"""Put a page into one file that asks for nothing: its modules, style sheets and data stand inside it.

A browser does not fetch modules for a page that was opened from a file manager. So `bundle` joins them into one script,
without their imports: each top-level name may exist once in all modules. The page's content security policy names the
script and the style sheet by their SHA-256 and allows nothing else, whatever stands in the data."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from ..report import render

PAGE = Path(__file__).parent
# Those of the attention panel, each after those that it imports.
VIEWS = ("nodes", "tokens", "colours", "recording", "lines", "thumbnails", "matrix", "neurons", "rows")
PANEL = [PAGE / f"{name}.js" for name in (*VIEWS, "patterns", "strip", "exports", "attention")]
STYLE = PAGE / "page.css"
IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?function |const |class )", re.MULTILINE)
TOP_LEVEL = re.compile(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", re.MULTILINE)


def bundle(template: Path, modules: Sequence[Path], styles: Sequence[Path], data: object) -> str:
    """Return one HTML file: a template in Jinja with `policy`, `style`, `script` and `data` filled in.

    modules: in the order of their imports. Raises ValueError for modules that cannot stand in one script."""
    script = join_modules({path.name: path.read_text(encoding="utf-8") for path in modules})
    style = "\n".join(path.read_text(encoding="utf-8") for path in styles)
    policy = (
        f"default-src 'none'; script-src {name_hash(script)}; style-src {name_hash(style)}; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    return render(template, policy=policy, style=style, script=script, data=write_data(data))


def join_modules(modules: dict[str, str]) -> str:
    """Return modules, source by name, as one script without imports and exports."""
    sources: list[str] = []
    names: dict[str, str] = {}  # top-level name -> its module
    for module, source in modules.items():
        for imported, origin in IMPORT.findall(source):
            for name in filter(None, map(str.strip, imported.split(","))):
                if names.get(name) != origin:
                    raise ValueError(f"{module}: imports {name} from {origin}, which no earlier module declares")
        for name in TOP_LEVEL.findall(source):
            if name in names:
                raise ValueError(f"{module}: {name} is a top-level name of {names[name]} too; rename one")
            names[name] = module
        sources.append(EXPORT.sub("", IMPORT.sub("", source)))
        if line := re.search(r"^(?:import|export) .*", sources[-1], re.MULTILINE):
            raise ValueError(f"{module}: only named imports and plain exports can be joined, not `{line[0]}`")
    script = "\n".join(sources)
    if trap := re.search(r"</script|<!--", script, re.IGNORECASE):
        raise ValueError(f"a script inside a page cannot hold {trap[0]}")
    return script


def name_hash(content: str) -> str:
    """Return the name of a script or a style sheet in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def write_data(data: object) -> str:
    """Write JSON that can stand inside a <script>: ASCII only, and no `<`."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
