"""What the page keeps of its visitors while they are there: their files, and the analysis that they look at."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from ..emotion_analysis import EmotionAnalysis


@dataclass
class Visitor:
    """What is kept of one visitor.

    Attributes:
        folder (`Path`): The folder of what is made for the visitor.
        uploads (`set[Path]`): The files that the visitor sent.
        clip (`str`): The clip of the analysis.
        analysis ([`EmotionAnalysis`], *optional*): The analysis that the visitor looks at.
        run (`object`, *optional*): The description that was asked for last; none once it was stopped.
        has_left (`bool`): Whether the visitor has closed the page, so that nothing may be kept any more.
    """

    folder: Path
    uploads: set[Path] = field(default_factory=set)
    clip: str = ""
    analysis: EmotionAnalysis | None = None
    run: object | None = None
    has_left: bool = False

    def forget_files(self) -> None:
        """Deletes the folder of what was made for the visitor."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Visitors:
    """The visitors of the page, apart from each other. Who leaves is forgotten, with all files.

    Args:
        folder (`Path`): The folder in which Gradio and this class keep files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._visitors: dict[str, Visitor] = {}
        self._lock = Lock()

    def find(self, name: str) -> Visitor:
        """Returns what is kept of a visitor, nothing yet for who comes first.

        Args:
            name (`str`): The name that Gradio gives the visitor's tab.

        Returns:
            [`Visitor`]: The visitor, whose folder exists.
        """
        with self._lock:
            visitor = self._visitors.setdefault(name, Visitor(self.folder / f"visitor-{name}"))
            visitor.folder.mkdir(parents=True, exist_ok=True)
            return visitor

    def forget(self, name: str) -> None:
        """Deletes all that is kept of a visitor. Gradio keeps equal uploads of several visitors once: the last one's go.

        Args:
            name (`str`): The name that Gradio gives the visitor's tab.
        """
        with self._lock:
            visitor = self._visitors.pop(name, None)
            if visitor is None:
                return
            visitor.run, visitor.has_left = None, True
            visitor.forget_files()
            for upload in visitor.uploads.difference(*(other.uploads for other in self._visitors.values())):
                upload.unlink(missing_ok=True)
