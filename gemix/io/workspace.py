"""Where each step of the main job puts its result inside the work directory."""

from __future__ import annotations

import dataclasses
import os

from gemix.io.storage import Store


@dataclasses.dataclass(frozen=True)
class Workspace:
    """Directories and files below a work directory, local or ``s3://``.

    Each directory is finished when its marker (named here) is there.
    """

    workdir: str

    @classmethod
    def at(cls, workdir: str | os.PathLike[str]) -> Workspace:
        """The workspace below `workdir`, made absolute so that every process sees the same."""
        return cls(Store(workdir).url)

    @property
    def data(self) -> str:
        """Shards of the real images; marker ``manifest.json``."""
        return f"{self.workdir}/data"

    @property
    def gan(self) -> str:
        """Checkpoints and the final generator; marker ``generator.json``."""
        return f"{self.workdir}/gan"

    @property
    def teacher(self) -> str:
        """Classifiers that say what synthetic images show; marker ``teacher.json``."""
        return f"{self.workdir}/teacher"

    @property
    def metrics(self) -> str:
        """Features of the real images, kept for the next evaluation; may be deleted."""
        return f"{self.workdir}/metrics"

    def synthetic(self, method: str) -> str:
        """Shards of one method's synthetic images; marker ``manifest.json``."""
        return f"{self.workdir}/synthetic/{method}"

    def audit(self, set_digest: str) -> str:
        """Picture of an audit of the set of this digest: it shows real images, which stay here."""
        return f"{self.workdir}/audits/{set_digest[:16]}"

    @property
    def classifiers(self) -> str:
        """One directory a method and seed below; marker ``classifiers.json``."""
        return f"{self.workdir}/classifiers"

    @property
    def evaluation(self) -> str:
        """Test-set predictions and metrics; marker ``evaluation.json``."""
        return f"{self.workdir}/evaluation"

    @property
    def promotions(self) -> str:
        """The ledger: one file a decision, and below its id the model card."""
        return f"{self.workdir}/promotions"

    @property
    def comparison(self) -> str:
        """Trainings of all methods and their predictions; marker ``comparison.json``."""
        return f"{self.workdir}/comparison"

    @property
    def sweep(self) -> str:
        """The study's database and what its trials share; marker ``sweep.json``."""
        return f"{self.workdir}/sweep"

    @property
    def sweep_winner(self) -> str:
        """Synthetic images that the sweep's winner was trained on; marker ``manifest.json``."""
        return f"{self.sweep}/winner"

    @property
    def report(self) -> str:
        """The page; marker ``report.html``."""
        return f"{self.workdir}/report"

    @property
    def ray(self) -> str:
        """Run state of Ray Train, for restarts."""
        return f"{self.workdir}/ray"
