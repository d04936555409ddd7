"""The promotion of classifiers: who becomes champion, who does not and why, and the way back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from mlflow import MlflowClient

import gemix
from gemix.classifier.decision.decision import Decision as ClassDecision
from gemix.config import PipelineConfig
from gemix.core.errors import AlreadyFinishedError, CheckpointError, DataError, TrackingError
from gemix.data.shards.manifest import Manifest, combine_content
from gemix.io.audit_record import (
    AUDIT,
    Auc,
    Audit,
    AuditedImages,
    AuditFindings,
    Copies,
    LearnedFrom,
    MembershipAttack,
)
from gemix.io.records import write_record
from gemix.io.results import CLASSIFIERS
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.promotion.ledger import Decision, Ledger
from gemix.steps.evaluate import evaluate
from gemix.steps.promote import promote, rollback
from gemix.tracking.champion import RegisteredModel
from gemix.tracking.mlflow_run import start_run
from gemix.tracking.model_registry import DATA_DIGEST, register
from jobs._runtime import cli
from tests.steps.planted_classifiers import planted, write_set

NAME = "gemix-classifier"
TEXTS = {"intended_use": "A test.", "limits": "All.", "licence": "None.", "contact": "Nobody."}
SETTINGS = {
    "compute": {"cpus_per_worker": 1, "workers": 0},
    "audit": {"spaces": ["pixels"]},
    "promotion": {"card": TEXTS},
}
CONFIG = PipelineConfig.from_mapping(SETTINGS)

# the class of each pattern; its test patients, few of patterns 7 and 11
TRUTH = (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2)
PATIENTS = (10, 10, 10, 10, 10, 10, 10, 2, 10, 10, 10, 5)
WEAK = (0, 0, 0, 0, 0, 1, 1, 2, 1, 0, 2, 2)  # misses patterns 4, 8 and 9, takes 7 for cancer
BETTER = (0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2)  # finds 8 and 9
LUCKY = (0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2)  # and the two patients of 7: chance
MISSING = (0, 0, 0, 0, 0, 1, 0, 1, 2, 2, 2, 2)  # misses more disease than OVERCALLING
OVERCALLING = (2, 2, 2, 0, 0, 1, 1, 1, 2, 2, 2, 2)  # three quarters of the healthy are called ill
FIVE_LESS = (0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 1)  # as LUCKY, but for the five of pattern 11
USELESS = (1,) * 12
VERSIONS = {
    "better": (BETTER, "softmax"),
    "real": (WEAK, "real"),
    "lucky": (LUCKY, "softmax"),
    "overcalling": (OVERCALLING, "softmax"),
    "missing": (MISSING, "softmax"),
    "useless": (USELESS, "softmax"),
    "five-less": (FIVE_LESS, "softmax"),
    "threshold": (WEAK, "real"),
    "elsewhere": (LUCKY, "softmax"),
    "renamed": (LUCKY, "softmax"),
}
NUMBER = {name: str(number) for number, name in enumerate(VERSIONS, 1)}


def pairs(counts: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(pattern, TRUTH[pattern]) for pattern in range(12) for _ in range(counts[pattern])]


def passed_audit(digest: str, auc: float = 0.5) -> Audit:
    """An audit whose findings pass, or fail with a high AUC."""
    around = Auc(auc=0.5, low=0.45, high=0.55)
    images = AuditedImages(
        synthetic=12,
        synthetic_total=12,
        training=100,
        training_patients=100,
        members=100,
        member_patients=100,
        held_out=100,
        held_out_patients=100,
    )
    attack = MembershipAttack(
        space="pixels",
        attack="nearest",
        result=Auc(auc=auc, low=auc - 0.05, high=auc + 0.05),
        control=around,
    )
    findings = AuditFindings(
        images=images,
        learned_from=LearnedFrom(is_on_record=True, elsewhere=0, unknown=()),
        copies=Copies(resaved=0, held_out=0, singular=0),
        near=(),
        attacks=(attack,),
    )
    return Audit(
        set_digest=digest,
        verdict="passed",
        reasons=("all is well",),
        findings=findings,
        settings={},
        pairs=(),
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A work directory that `evaluate` has finished, with more versions in its registry."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        folder = tmp_path_factory.mktemp("promote") / "run"
        workspace = Workspace.at(folder)
        splits = {"train": pairs((1,) * 12), "val": pairs((1,) * 12), "test": pairs(PATIENTS)}
        real = write_set(workspace.data, splits)
        synthetic = write_set(
            workspace.synthetic("softmax"), {"train": pairs((1,) * 12)}, kind="synthetic", seed=5
        )
        write_record(Store(workspace.synthetic("softmax")), AUDIT, passed_audit(synthetic.digest))
        train = real.content_digest("train")
        digests = {"real": train, "softmax": combine_content([train, synthetic.digest])}
        rows = []
        for method, answers, score in (("real", WEAK, 0.7), ("softmax", BETTER, 0.8)):
            classifier = planted(
                answers, method=method, training_digest=digests[method], score=score
            )
            classifier.save(Store(f"{workspace.classifiers}/{method}-seed0"))
            row = {"name": f"{method}-seed0", "method": method, "seed": 0}
            rows.append(row | classifier.validation)
        Store(workspace.classifiers).write_json(CLASSIFIERS, rows)
        found = evaluate(CONFIG, workspace)
        assert found["registered_model"] == {"name": NAME, "version": NUMBER["better"]}
        with start_run(CONFIG, workspace.workdir, "more") as run:
            for name, (answers, method) in list(VERSIONS.items())[1:]:
                classifier = planted(
                    answers,
                    method=method,
                    training_digest="0" * 64 if name == "elsewhere" else digests[method],
                    score=0.7 if name == "real" else 0.9,
                    classes=("normal", "flu", "cancer")
                    if name == "renamed"
                    else found["test"]["classes"],
                )
                if name == "threshold":  # the weights of real, but all are called ill
                    classifier = dataclasses.replace(
                        classifier, decision=ClassDecision(normal=0, threshold=0.0)
                    )
                tags = {"method": method, "seed": "0"}
                tags |= {} if name == "overcalling" else {DATA_DIGEST: real.digest}
                register(classifier, run, NAME, tags)
    return folder


@pytest.fixture
def workspace(made, tmp_path, monkeypatch) -> Workspace:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(made, tmp_path / "run")
    return Workspace.at(tmp_path / "run")


def registry(workspace: Workspace) -> MlflowClient:
    return MlflowClient(f"sqlite:///{workspace.workdir}/mlflow.db")


def aliases(workspace: Workspace) -> dict[str, str]:
    """The version of each alias that promotion sets, by name."""
    names = {number: name for name, number in NUMBER.items()}
    found = registry(workspace).get_registered_model(NAME).aliases
    return {alias: names[str(n)] for alias, n in found.items() if alias != "latest-best"}


def crown(workspace: Workspace, name: str) -> None:
    """Make a version champion by hand, as somebody with MLflow's page can."""
    from gemix.tracking.database import relocate_artifacts

    relocate_artifacts(Path(workspace.workdir, "mlflow.db"))
    registry(workspace).set_registered_model_alias(NAME, "champion", NUMBER[name])


def against(decision: Decision) -> set[str]:
    return {one.rule for one in decision.findings if not one.passed}


def ledger(workspace: Workspace) -> list[dict]:
    return [
        json.loads(path.read_text()) for path in sorted(Path(workspace.promotions).glob("*.json"))
    ]


def test_a_better_model_becomes_the_first_champion(workspace):
    decision = promote(CONFIG, workspace)
    assert decision.promoted and against(decision) == set()
    assert aliases(workspace) == {"champion": "better"}
    assert decision.champion is None
    assert decision.reference.name == "real-seed0" and decision.reference.version is None
    figures = {one.rate: one for one in decision.figures}
    # WEAK has recalls 1, 20 of 32 and 15 of 35; BETTER 1, 20 of 32 and 1
    assert figures["fnr"].candidate == pytest.approx(1 - (1 + 20 / 32 + 1) / 3)
    assert figures["fnr"].reference == pytest.approx(1 - (1 + 20 / 32 + 15 / 35) / 3)
    assert figures["missed_disease_rate"].candidate == pytest.approx(10 / 67)
    assert figures["missed_disease_rate"].reference == pytest.approx(20 / 67)
    assert figures["macro_f2"].difference.low > 0 > figures["fnr"].difference.high
    assert "say nothing of the methods" in decision.remarks[0]
    assert decision.reasons == tuple(one.text for one in decision.findings)
    # latest-best stays with the newest registered version
    newest = registry(workspace).get_registered_model(NAME).aliases["latest-best"]
    assert str(newest) == NUMBER["renamed"]


def test_the_ledger_holds_who_what_and_why_and_is_never_rewritten(workspace):
    promote(CONFIG, workspace)
    first = Path(workspace.promotions, "000001.json")
    before = first.read_bytes(), first.stat().st_mtime_ns
    decision = promote(CONFIG, workspace, version=NUMBER["lucky"])
    assert (first.read_bytes(), first.stat().st_mtime_ns) == before
    entry, client = ledger(workspace)[1], registry(workspace)
    assert entry["who"]["host"] == os.uname().nodename and entry["who"]["user"]
    assert entry["champion"]["version"] == NUMBER["better"]
    real = planted(BETTER, method="softmax", training_digest="0" * 64)
    assert entry["champion"]["checksum"] == real.checksum != entry["candidate"]["checksum"]
    assert [one["rule"] for one in entry["findings"] if not one["passed"]] == ["macro_f2"]
    assert entry["margin"] == 0.02 and entry["test"]["openings"] == 3  # evaluate, two promotions
    evaluation = Path(workspace.evaluation, "evaluation.json").read_bytes()
    audit = Path(workspace.synthetic("softmax"), AUDIT).read_bytes()
    assert entry["sha256"]["evaluation/evaluation.json"] == hashlib.sha256(evaluation).hexdigest()
    assert entry["sha256"]["synthetic/softmax/audit.json"] == hashlib.sha256(audit).hexdigest()
    card = Path(workspace.promotions, decision.id, "model_card.json").read_bytes()
    assert entry["sha256"]["model_card.json"] == hashlib.sha256(card).hexdigest()
    (run, *_) = client.search_runs(["1"], "tags.job = 'promote'", order_by=["start_time DESC"])
    path = client.download_artifacts(run.info.run_id, "decision.json")
    assert json.loads(Path(path).read_text()) == entry
    assert Ledger(Store(workspace.promotions)).last(NAME) == decision


def test_the_best_real_only_classifier_may_be_the_first_champion(workspace):
    decision = promote(CONFIG, workspace, version=NUMBER["real"])
    assert decision.promoted and aliases(workspace) == {"champion": "real"}
    assert "nothing that it could be better than" in decision.reasons[0]
    assert decision.figures[0].difference is None
    assert not any(name.endswith(AUDIT) for name in decision.sha256)  # it needs none


def test_a_lucky_seed_is_a_challenger_since_its_interval_contains_zero(workspace):
    crown(workspace, "better")
    decision = promote(CONFIG, workspace, version=NUMBER["lucky"])
    assert against(decision) == {"macro_f2"}
    gain = decision.figures[0].difference
    assert gain.delta > 0 >= gain.low
    assert aliases(workspace) == {"champion": "better", "challenger": "lucky"}
    assert "not shown to be better: 2 patients are answered" in decision.reasons[0]


def test_five_patients_more_are_chance_though_a_bootstrap_is_sure(workspace):
    crown(workspace, "five-less")
    decision = promote(CONFIG, workspace, version=NUMBER["lucky"])
    assert decision.figures[0].difference.low > 0
    assert against(decision) == {"macro_f2"}
    assert "5 patients are answered differently, and fewer than 6 may be" in decision.reasons[0]


def test_classes_are_those_of_the_decision_and_the_same_weights_are_no_same_classifier(workspace):
    decision = promote(CONFIG, workspace, version=NUMBER["threshold"])
    assert decision.candidate.checksum == decision.reference.checksum
    assert against(decision) == {"fnr", "macro_f2"}
    figures = {one.rate: one for one in decision.figures}
    assert figures["missed_disease_rate"].candidate == 0  # and no healthy one is found
    assert "have a probability of 0.0000 or more" in decision.candidate.decision


def test_another_version_of_the_champions_own_weights_is_not_decided_on(workspace):
    crown(workspace, "lucky")
    with pytest.raises(AlreadyFinishedError, match="the weights and the decision of the champion"):
        promote(CONFIG, workspace, version=NUMBER["elsewhere"])
    assert ledger(workspace) == [] and aliases(workspace) == {"champion": "lucky"}
    assert len(Store(workspace.workdir).read_json("test_openings.json")) == 1  # of evaluate


def test_more_missed_disease_is_refused_however_good_the_f2(workspace):
    crown(workspace, "overcalling")
    decision = promote(CONFIG, workspace, version=NUMBER["missing"])
    figures = {one.rate: one for one in decision.figures}
    assert figures["macro_f2"].difference.low > 0 and figures["accuracy"].difference.low > 0
    assert against(decision) == {"missed_disease_rate"}
    assert aliases(workspace) == {"champion": "overcalling", "challenger": "missing"}
    # this champion's data are not on record
    assert "may have seen these test patients, which favours it" in " ".join(decision.remarks)
    generous = PipelineConfig.from_mapping(
        SETTINGS | {"promotion": {"card": TEXTS, "fnr_margin": 0.5}}
    )
    assert promote(generous, workspace, version=NUMBER["missing"]).promoted
    assert aliases(workspace) == {"champion": "missing", "previous-champion": "overcalling"}


def test_all_reasons_are_given_and_not_the_first_alone(workspace):
    crown(workspace, "better")
    Store(workspace.synthetic("softmax")).delete(AUDIT)
    bare = PipelineConfig.from_mapping(
        SETTINGS | {"promotion": {"card": TEXTS | {"licence": " ", "contact": ""}}}
    )
    decision = promote(bare, workspace, version=NUMBER["useless"])
    assert against(decision) == {"fnr", "macro_f2", "fitness", "audit", "card"}
    reasons = " | ".join(decision.reasons)
    for words in (
        "its 95% interval is not above guessing (0.333)",
        "run gemix audit softmax",
        "promotion.card.licence, promotion.card.contact",
        "may be worse by more than promotion.fnr_margin, 0.02",
    ):
        assert words in reasons


@pytest.mark.parametrize("case", ["none", "failed", "of another version"])
def test_without_a_passed_audit_of_exactly_its_set_there_is_no_champion(workspace, case):
    store = Store(workspace.synthetic("softmax"))
    digest = Manifest.load(store).digest
    if case == "none":
        store.delete(AUDIT)
    else:
        audit = passed_audit(digest, 0.9) if case == "failed" else passed_audit("1" * 64)
        write_record(store, AUDIT, audit)
    decision = promote(CONFIG, workspace)
    assert against(decision) == {"audit"}
    words = "its audit is failed" if case == "failed" else "not been audited in this version"
    assert words in decision.reasons[0]
    assert aliases(workspace) == {"challenger": "better"}


def test_other_training_images_than_those_that_were_audited_are_refused(workspace):
    assert against(promote(CONFIG, workspace, version=NUMBER["elsewhere"])) == {"training images"}
    # another set under the same name, itself audited
    url = workspace.synthetic("softmax")
    other = write_set(url, {"train": pairs((2,) * 12)}, kind="synthetic", seed=6)
    write_record(Store(url), AUDIT, passed_audit(other.digest))
    decision = promote(CONFIG, workspace)
    assert against(decision) == {"training images"}
    words = "but the real images and the synthetic set softmax in the work directory have"
    assert words in decision.reasons[0]


def test_classes_that_differ_are_refused_with_both_lists(workspace):
    with pytest.raises(
        DataError, match=r"'flu'.*\['normal', 'pneumonia', 'cancer'\].*another name"
    ):
        promote(CONFIG, workspace, version=NUMBER["renamed"])
    assert ledger(workspace) == [] and aliases(workspace) == {}


def test_rollback_walks_back_and_says_when_there_is_nothing_before(workspace):
    promote(CONFIG, workspace, version=NUMBER["real"])
    promote(CONFIG, workspace)
    assert aliases(workspace) == {"champion": "better", "previous-champion": "real"}
    decision = rollback(CONFIG, workspace)
    assert (decision.action, decision.candidate.version) == ("rollback", NUMBER["real"])
    assert decision.champion.version == NUMBER["better"]
    assert aliases(workspace) == {"champion": "real"}
    assert [one["action"] for one in ledger(workspace)] == ["promote", "promote", "rollback"]
    with pytest.raises(DataError, match="no previous champion to go back to"):
        rollback(CONFIG, workspace)
    assert len(ledger(workspace)) == 3


class Killed(BaseException):
    """The process ends, whatever is caught."""


def kill_at(monkeypatch, call: int) -> None:
    """End the command before its n-th request that changes the registry's aliases."""
    give, take, count = RegisteredModel.give, RegisteredModel.take, iter(range(100))

    def stop(method):
        def changed(self, *arguments):
            if next(count) == call:
                raise Killed
            return method(self, *arguments)

        return changed

    monkeypatch.setattr(RegisteredModel, "give", stop(give))
    monkeypatch.setattr(RegisteredModel, "take", stop(take))


@pytest.mark.parametrize("call", [0, 1])
def test_a_kill_between_two_aliases_leaves_a_champion_and_the_next_command_ends_it(
    workspace, monkeypatch, call
):
    promote(CONFIG, workspace, version=NUMBER["real"])
    with monkeypatch.context() as patch:
        kill_at(patch, call)
        with pytest.raises(Killed):
            promote(CONFIG, workspace)
    assert aliases(workspace)["champion"] == "real"
    openings = len(Store(workspace.workdir).read_json("test_openings.json"))
    decision = promote(CONFIG, workspace)
    assert decision.promoted
    assert aliases(workspace) == {"champion": "better", "previous-champion": "real"}
    # it was decided once, and the test images were not opened again
    assert len(ledger(workspace)) == 2
    assert len(Store(workspace.workdir).read_json("test_openings.json")) == openings
    with pytest.raises(AlreadyFinishedError, match="the champion already"):
        promote(CONFIG, workspace)


@pytest.mark.parametrize("call", [0, 1])
def test_a_rollback_that_was_killed_goes_back_one_champion_and_not_two(
    workspace, monkeypatch, call
):
    promote(CONFIG, workspace, version=NUMBER["real"])
    promote(CONFIG, workspace)
    with monkeypatch.context() as patch:
        kill_at(patch, call)
        with pytest.raises(Killed):
            rollback(CONFIG, workspace)
    assert aliases(workspace)["champion"] == ("better", "real")[call]
    assert rollback(CONFIG, workspace).candidate.version == NUMBER["real"]
    assert aliases(workspace) == {"champion": "real"}


def test_a_decision_that_was_never_carried_out_gives_way_to_a_changed_registry(
    workspace, monkeypatch, caplog
):
    promote(CONFIG, workspace, version=NUMBER["real"])
    with monkeypatch.context() as patch:
        kill_at(patch, 1)
        with pytest.raises(Killed):
            promote(CONFIG, workspace)
    crown(workspace, "overcalling")
    decision = promote(CONFIG, workspace)
    assert "the registry has changed since" in caplog.text
    assert decision.champion.version == NUMBER["overcalling"]


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_decision_is_carried_out_once_whatever_other_work_directories_decide(
    workspace, monkeypatch, is_killed
):
    promote(CONFIG, workspace, version=NUMBER["real"])
    if is_killed:  # the aliases are moved, and the last request is not made
        tag = RegisteredModel.tag

        def stop(self, number, tags):
            if tags.get("gemix.promotion") == "champion":
                raise Killed
            tag(self, number, tags)

        with monkeypatch.context() as patch:
            patch.setattr(RegisteredModel, "tag", stop)
            with pytest.raises(Killed):
                promote(CONFIG, workspace)
    else:
        promote(CONFIG, workspace)
    assert aliases(workspace)["champion"] == "better"
    ours = shutil.move(workspace.promotions, f"{workspace.workdir}/ours")
    assert rollback(CONFIG, workspace).candidate.version == NUMBER["real"]
    bare = PipelineConfig.from_mapping(SETTINGS | {"promotion": {}})
    assert not promote(bare, workspace).promoted
    shutil.rmtree(workspace.promotions)
    shutil.move(ours, workspace.promotions)
    decision = promote(CONFIG, workspace, version=NUMBER["useless"])
    assert decision.champion.version == NUMBER["real"]
    assert aliases(workspace) == {"champion": "real", "challenger": "useless"}


def test_a_refusal_that_was_killed_is_finished_by_the_next_command(workspace, monkeypatch):
    crown(workspace, "better")
    with monkeypatch.context() as patch:
        kill_at(patch, 0)
        with pytest.raises(Killed):
            promote(CONFIG, workspace, version=NUMBER["lucky"])
    assert aliases(workspace) == {"champion": "better"}
    with pytest.raises(DataError, match="no previous champion"):
        rollback(CONFIG, workspace)
    assert aliases(workspace) == {"champion": "better", "challenger": "lucky"}
    tags = registry(workspace).get_model_version(NAME, NUMBER["lucky"]).tags
    assert tags["gemix.promotion"] == "refused"
    assert tags[f"gemix.decision.{ledger(workspace)[0]['id']}"] == "done"
    assert len(ledger(workspace)) == 1


def test_a_version_deleted_while_its_decision_is_carried_out_is_named(workspace, monkeypatch):
    append = Ledger.append

    def deleted(self, decision):
        append(self, decision)
        registry(workspace).delete_model_version(NAME, decision.candidate.version)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", deleted)
        with pytest.raises(DataError, match=r"the registry refuses a request: .*version=1.* not"):
            promote(CONFIG, workspace)
    assert promote(CONFIG, workspace, version=NUMBER["real"]).promoted
    assert aliases(workspace) == {"champion": "real"}


def test_a_champion_that_was_deleted(workspace):
    promote(CONFIG, workspace, version=NUMBER["real"])
    promote(CONFIG, workspace)
    registry(workspace).delete_model_version(NAME, NUMBER["better"])
    with pytest.raises(DataError, match=r"the champion is gone.*--rollback makes version 2"):
        promote(CONFIG, workspace, version=NUMBER["lucky"])
    assert rollback(CONFIG, workspace).candidate.version == NUMBER["real"]
    registry(workspace).delete_model_version(NAME, NUMBER["real"])
    decision = promote(CONFIG, workspace, version=NUMBER["lucky"])
    assert decision.promoted and decision.champion is None
    assert "The ledger has version 2 as the champion" in decision.remarks[0]
    with pytest.raises(DataError, match="has no version 1, or it is deleted"):
        promote(CONFIG, workspace)


def test_a_champion_whose_files_are_gone_is_named(workspace):
    crown(workspace, "real")
    source = registry(workspace).get_model_version(NAME, NUMBER["real"]).source
    shutil.rmtree(f"{source.removeprefix('file://')}/artifacts/classifier")
    with pytest.raises(
        CheckpointError, match=r"version 2: there are no files in .*restore its files"
    ):
        promote(CONFIG, workspace)
    assert aliases(workspace) == {"champion": "real"}


def test_passing_trouble_of_the_registry_is_retried(workspace, monkeypatch):
    from gemix.tracking import champion

    monkeypatch.setattr(champion, "_RETRY_SECONDS", (0.0, 0.0))
    failures = iter([1, 1])
    set_alias = MlflowClient.set_registered_model_alias

    def flaky(self, *arguments):
        if next(failures, None):
            raise OSError("connection reset")
        return set_alias(self, *arguments)

    monkeypatch.setattr(
        "gemix.tracking.mlflow_errors.tracking_error", lambda *_: TrackingError("x")
    )
    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", flaky)
    assert promote(CONFIG, workspace).promoted
    assert aliases(workspace) == {"champion": "better"}


def test_a_registry_that_is_away_moves_nothing(workspace, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match="check that the server runs"):
        promote(CONFIG, workspace)
    assert ledger(workspace) == []


def test_the_card_says_what_a_run_knows_and_what_people_have_to(workspace):
    decision = promote(CONFIG, workspace)
    folder = Path(workspace.promotions, decision.id)
    card, text = (
        json.loads((folder / "model_card.json").read_text()),
        (folder / "model_card.md").read_text(),
    )
    assert card["lacks"] == []
    rows = {row["name"]: row for row in card["classes"]}
    assert rows["pneumonia"]["recall"]["value"] == pytest.approx(20 / 32)
    assert rows["pneumonia"]["recall"]["low"] < 20 / 32 < rows["pneumonia"]["recall"]["high"]
    assert rows["cancer"]["recall"]["low"] == pytest.approx(0.025 ** (1 / 35))  # all 35 are right
    assert rows["cancer"]["precision"]["value"] == pytest.approx(35 / 37)
    assert card["ece"] == pytest.approx(12 / 107, abs=0.02)  # it is sure, and wrong on 12 of 107
    assert card["decision"]["temperature"] == 1 and "Decision: the class of the highest" in text
    assert card["synthetic"][0]["verdict"] == "passed"
    items = {item["number"]: item for item in card["claim"]}
    assert list(items) == list(range(1, 45))
    assert "| validation, by the most probable class: val_macro_f2 | 0.8 |" in text
    tags = registry(workspace).get_model_version(NAME, NUMBER["better"]).tags
    assert tags["val_macro_f2_of_most_probable_class"] == "0.8" and "val_macro_f2" not in tags
    assert "where several were tried, the test images chose" in items[26]["answer"]
    assert items[28]["open"] is None and items[44]["answer"] is None
    for words in ("## Intended use\n\nA test.", "false-negative rate", "CLAIM 2024", "| passed |"):
        assert words in text
    version = registry(workspace).get_model_version(NAME, NUMBER["better"])
    assert "## Intended use" in version.description and len(version.description) <= 5000
    assert Path(version.source.removeprefix("file://"), "model_card.md").read_text() == text


def test_the_card_and_the_model_name_no_directory_and_no_bucket(workspace):
    store = Store(workspace.synthetic("softmax"))
    manifest = Manifest.load(store)
    foreign = {
        "generator": "s3://ward-7/gan",
        "teacher": "/scratch/doe/teacher",
        "labels": "teacher",
    }
    labels = {"recall_of": "/scratch/doe/recall"}
    origin = {"method": "softmax", "synthesis": foreign, "labels": labels}
    dataclasses.replace(manifest, origin=origin).save(store)
    classifier = planted(BETTER, method="softmax", training_digest="0" * 64)
    config = dataclasses.replace(classifier.config, weights="/scratch/doe/start.safetensors")
    with start_run(CONFIG, workspace.workdir, "more") as run:
        started = dataclasses.replace(classifier, config=config, weights_sha256="5" * 64)
        version = register(started, run, NAME, {})
    decision = promote(CONFIG, workspace, version=version)
    folder = Path(workspace.promotions, decision.id)
    card = json.loads((folder / "model_card.json").read_text())
    assert card["synthetic"][0]["synthesis"] == {"labels": "teacher"}
    assert card["training"]["weights"] == "start.safetensors"
    assert card["training"]["weights_sha256"] == "5" * 64
    assert card["claim"][23]["answer"] == (
        f"weights of the file start.safetensors, SHA-256 {'5' * 64}"
    )
    source = registry(workspace).get_model_version(NAME, version).source
    model = Path(source.removeprefix("file://"))
    own = [file for file in model.rglob("*") if file.is_file() and "code" not in file.parts]
    assert {"MLmodel", "model.json", "model_card.md"} <= {file.name for file in own}
    here = (workspace.workdir, str(Path(gemix.__file__).parent), tempfile.gettempdir())
    for file in own:
        for word in ("/scratch/doe", *here):
            assert word.encode() not in file.read_bytes(), file
    for file in folder.iterdir():
        text = file.read_text()
        for word in ("/scratch/doe", "ward-7", "s3:", workspace.workdir):
            assert word not in text
        assert not re.search(r"(real|synthetic)-(train|val|test)-\d", text)  # the patients' names


def plant_sweep(workspace: Workspace, answers: tuple[int, ...], name: str = "trial 3") -> None:
    """Write a finished sweep: a winner of these answers, its training images and its test."""
    store, real = Store(workspace.sweep), Manifest.load(Store(workspace.data))
    train = real.content_digest("train")
    made = write_set(workspace.sweep_winner, {"train": pairs((1,) * 12)}, kind="synthetic", seed=7)
    trained = {
        "trial-3-1": planted(
            answers,
            method="softmax",
            training_digest=combine_content([train, made.digest]),
            seed=41,
        ),
        "real-only-0": planted(WEAK, training_digest=train, seed=40),
    }
    for folder, classifier in trained.items():
        classifier.save(store / f"confirmed/{folder}")
    scores = {"macro_f2": 0.8, "fnr": 0.1, "missed_disease_rate": 0.1}
    candidate = {"name": name, "trial": 3, "searched": scores, "fresh": scores, "outcome": "wins"}
    winner = candidate | {"overfitted": 0.0, "settings": {}, "classifier": "trial-3-1"}
    test = {
        "images": 107,
        "groups": 107,
        "openings": 1,
        "seeds": 2,
        "results": {},
        "digest": real.content_digest("test"),
    }
    confirmed = {
        "candidates": [candidate],
        "winner": winner,
        "test": test,
        "real_only": "real-only-0",
        "overlap": {"shared": [], "unknown": []},
    }
    results = {"study": "sweep", "objective": "constrained", "trials": [], "confirmed": confirmed}
    store.write_json("sweep.json", results)


def test_the_winner_of_a_sweep_passes_the_same_gate_without_an_evaluation(workspace, capsys):
    plant_sweep(workspace, BETTER)
    shutil.rmtree(workspace.evaluation)
    shutil.rmtree(workspace.classifiers)
    newest = registry(workspace).get_registered_model(NAME).aliases["latest-best"]
    refused = promote(CONFIG, workspace, sweep=True)
    assert against(refused) == {"audit"}
    assert refused.reasons[0].endswith(f"run gemix audit {workspace.sweep_winner}")
    winner = Store(workspace.sweep_winner)
    write_record(winner, AUDIT, passed_audit(Manifest.load(winner).digest))
    decision = promote(CONFIG, workspace, sweep=True)
    assert decision.promoted and decision.reference.name == "real-only-0"
    # registered once, and not as what `evaluate` has found
    number = str(len(VERSIONS) + 1)
    assert refused.candidate.version == decision.candidate.version == number
    found = registry(workspace).get_registered_model(NAME).aliases
    assert str(found["champion"]) == number and found["latest-best"] == newest
    tags = registry(workspace).get_model_version(NAME, number).tags
    assert (tags["gemix.sweep"], tags["method"], tags["seed"]) == ("trial 3", "softmax", "41")
    assert {"sweep/sweep.json", f"sweep/winner/{AUDIT}"} < set(decision.sha256)
    with pytest.raises(AlreadyFinishedError, match="the champion already"):
        promote(CONFIG, workspace, sweep=True)
    plant_sweep(workspace, WEAK)  # the winner of more trials
    worse = promote(CONFIG, workspace, sweep=True)
    assert worse.candidate.version == str(len(VERSIONS) + 2)
    assert not worse.promoted and {"fnr", "macro_f2"} <= against(worse)


def test_a_sweep_without_a_winner_of_its_own_has_no_candidate(workspace):
    with pytest.raises(DataError, match="no sweep has ended; run gemix sweep to its end, or leave"):
        promote(CONFIG, workspace, sweep=True)
    for name in ("real only", "published default"):
        plant_sweep(workspace, BETTER, name)
        with pytest.raises(DataError, match=rf"nothing better than its default, '{name}'.*without"):
            promote(CONFIG, workspace, sweep=True)
    plant_sweep(workspace, BETTER)
    store = Store(workspace.sweep)
    results = store.read_json("sweep.json")
    for changes, reason in (
        ({"test": results["confirmed"]["test"] | {"digest": "2" * 64}}, "gemix sweep --overwrite"),
        ({"real_only": None}, r"kept none of its images.*higher sweep\.trials"),
        (None, r"neither trained on fresh seeds nor tested.*sweep\.fresh_seeds above 0"),
    ):
        changed = None if changes is None else results["confirmed"] | changes
        store.write_json("sweep.json", results | {"confirmed": changed})
        with pytest.raises(DataError, match=reason):
            promote(CONFIG, workspace, sweep=True)
    assert ledger(workspace) == []


def test_an_incomplete_card_lacks_texts_by_name(workspace):
    plain = PipelineConfig.from_mapping({k: v for k, v in SETTINGS.items() if k != "promotion"})
    decision = promote(plain, workspace)
    assert against(decision) == {"card"}
    names = ("intended_use", "limits", "licence", "contact")
    assert all(f"promotion.card.{name}" in decision.reasons[0] for name in names)


def test_an_evaluation_of_other_test_images_is_out_of_date(workspace):
    evaluation = Store(workspace.evaluation).read_json("evaluation.json")
    evaluation["test"]["digest"] = "2" * 64
    Store(workspace.evaluation).write_json("evaluation.json", evaluation)
    with pytest.raises(DataError, match="run gemix evaluate --overwrite"):
        promote(CONFIG, workspace)


def test_a_candidate_that_learned_from_test_patients_is_refused(workspace):
    evaluation = Store(workspace.evaluation).read_json("evaluation.json")
    evaluation["overlap"]["shared"] = [
        {"learned": "a", "held_out": "b", "groups": 3, "images": 1, "copies": 0}
    ]
    Store(workspace.evaluation).write_json("evaluation.json", evaluation)
    decision = promote(CONFIG, workspace)
    assert against(decision) == {"test images"}
    assert "a and b share 3 patients" in decision.reasons[0]


def test_the_command_prints_every_reason_and_exits_with_1(workspace, tmp_path, capsys):
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.to_yaml())
    arguments = ["promote", "-c", str(file), "-w", workspace.workdir]
    assert cli.main([*arguments, "--version", NUMBER["useless"]]) == 1
    printed = capsys.readouterr()
    assert "version 6 is a challenger" in printed.out and "not above guessing" in printed.out
    assert "not promoted, for 3 reason(s)" in printed.err
    assert cli.main(arguments) == 0
    assert cli.main([*arguments, "--rollback"]) == 1
    assert "no previous champion" in capsys.readouterr().err


def test_fields_of_a_decision_survive_the_file(workspace):
    decision = promote(CONFIG, workspace)
    again = Ledger(Store(workspace.promotions)).last(NAME)
    assert dataclasses.asdict(again) == dataclasses.asdict(decision)
