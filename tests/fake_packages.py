"""Makes installed packages: a module or two beside the metadata that an installer would write."""

from pathlib import Path
from textwrap import dedent


class Site:
    """A folder that stands for `site-packages`.

    Args:
        folder: put it on `sys.path` (or `PYTHONPATH`) yourself.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, **files: str) -> None:
        """Write `module="source"`; two underscores in a name stand for a folder's slash."""
        for name, source in files.items():
            path = self.folder / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(source))

    def config(self, path: str, text: str) -> None:
        """Write a YAML file."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))

    def register(self, distribution: str, version: str, **groups: dict[str, str]) -> Path:
        """Write metadata with entry points; `xlm_losses` stands for the group `xlm.losses`.

        Only the last underscore of a group stands for a dot.
        """
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        lines = []
        for group, points in groups.items():
            lines.append(f"[{'.'.join(group.rsplit('_', 1))}]")
            lines.extend(f"{name} = {value}" for name, value in points.items())
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        return info
