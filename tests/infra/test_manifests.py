"""The cluster files, held offline against the schemas and the commands that they speak to."""

from __future__ import annotations

import configparser
import fnmatch
import importlib
import json
import re
import shlex
from importlib.metadata import version
from pathlib import Path

import mlflow.cli
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.runtime_env import RuntimeEnv

from gemix.config import load
from jobs._runtime.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"


@pytest.fixture
def cluster() -> dict:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture
def rayjob() -> dict:
    return yaml.safe_load((INFRA / "kuberay/rayjob.yaml").read_text())


def check_pipeline_command(command: str) -> None:
    """A submitted command is a job of this project, with arguments that its parser takes."""
    words = shlex.split(command)
    start = words.index("-m")
    assert words[start - 1] == "python"
    package, _, module = words[start + 1].partition(".")
    assert package == "jobs" and module.replace("_", "-") in COMMANDS
    overrides = [word for word in words[start + 2 :] if "=" in word]
    assert all(re.fullmatch(r"[a-z_]+(\.[a-z_]+)+=\S+", word) for word in overrides)


def test_the_launcher_accepts_the_cluster(cluster):
    validate_config(prepare_config(cluster))


def test_the_launcher_check_can_fail(cluster):
    cluster["head_node_typ"] = cluster.pop("head_node_type")
    with pytest.raises(Exception, match="head_node_typ"):
        validate_config(prepare_config(cluster))


def test_every_node_of_the_cluster_authenticates_and_reads_s3_by_its_role(cluster):
    starts = cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    starts = [command for command in starts if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token ray start" in command for command in starts)
    assert "~/.ray/auth_token" in cluster["file_mounts"]
    for kind in cluster["available_node_types"].values():
        assert kind["node_config"]["IamInstanceProfile"] == {"Name": "gemix-node"}
    assert "aws_access_key_id" not in json.dumps(cluster).lower()


def test_one_node_has_the_gpus_of_one_training(cluster):
    """The largest preset and the cluster fit together; no training crosses the network."""
    compute = load("covidx128").compute
    node = cluster["available_node_types"]["gpu"]
    assert node["resources"]["GPU"] == compute.workers * compute.gpus_per_worker
    assert node["resources"]["CPU"] >= compute.workers * compute.cpus_per_worker
    kinds = cluster["available_node_types"].values()
    assert sum(kind.get("max_workers", 0) for kind in kinds) <= cluster["max_workers"]
    assert node["max_workers"] == 1


def test_images_have_the_ray_of_the_constraints(cluster, rayjob):
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)[1]
    assert pinned == version("ray")
    dockerfile = (INFRA / "kuberay/Dockerfile").read_text()
    images = [*cluster["docker"].values(), *dockerfile.split()]
    found = [image for image in images if str(image).startswith("rayproject/ray:")]
    assert len(found) == 3
    assert all(image.startswith(f"rayproject/ray:{pinned}-py311") for image in found)
    assert rayjob["spec"]["rayClusterSpec"]["rayVersion"] == pinned


def test_the_rayjob_runs_the_pipeline_with_as_many_gpus_as_it_has(rayjob):
    spec = rayjob["spec"]
    check_pipeline_command(spec["entrypoint"])
    RuntimeEnv(**yaml.safe_load(spec["runtimeEnvYAML"]))
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert f"compute.workers={group['replicas']}" in spec["entrypoint"]
    (container,) = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_runtime_environment_works_as_it_stands(rayjob):
    """What has to be edited, such as the address of a tracking server, is a comment in it."""
    text = (INFRA / "runtime_env.yaml").read_text()
    tree = yaml.safe_load(text)
    RuntimeEnv(**tree)
    assert "example.org" not in str(tree) and "# MLFLOW_TRACKING_URI: https://" in text
    of_kubernetes = yaml.safe_load(rayjob["spec"]["runtimeEnvYAML"])["env_vars"]
    assert tree["env_vars"].items() <= of_kubernetes.items()


def allowed(policy: dict, action: str, resource: str) -> bool:
    """Whether some statement allows it (conditions are not looked at)."""
    as_list = lambda value: value if isinstance(value, list) else [value]  # noqa: E731
    return any(
        statement["Effect"] == "Allow"
        and action in as_list(statement["Action"])
        and any(fnmatch.fnmatchcase(resource, r) for r in as_list(statement["Resource"]))
        for statement in policy["Statement"]
    )


def test_the_policy_gives_what_the_jobs_need_and_no_more():
    policy = json.loads((INFRA / "aws/s3-policy.json").read_text())
    bucket = "arn:aws:s3:::gemix-example"
    for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
        assert allowed(policy, action, f"{bucket}/runs/a/data/manifest.json")
        assert not allowed(policy, action, f"{bucket}/elsewhere/file")
    assert allowed(policy, "s3:ListBucket", bucket)
    assert allowed(policy, "s3:GetObject", f"{bucket}/covidx-ct/3A_images/a.png")
    assert not allowed(policy, "s3:PutObject", f"{bucket}/covidx-ct/3A_images/a.png")
    actions = json.dumps([s["Action"] for s in policy["Statement"] if s["Effect"] == "Allow"])
    assert "*" not in actions


def test_the_mlflow_unit_calls_the_server_with_options_that_it_has():
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read(INFRA / "mlflow/mlflow.service")
    words = shlex.split(unit["Service"]["ExecStart"].replace("\\\n", " "))
    assert words[0].endswith("/mlflow") and words[1] == "server"
    known = {name for option in mlflow.cli.server.params for name in option.opts}
    given = {word for word in words if word.startswith("--")}
    assert given <= known
    assert {"--allowed-hosts", "--app-name", "--workers"} <= given


def test_commands_in_the_readme_are_jobs_of_this_project():
    text = (INFRA / "README.md").read_text().replace("\\\n", " ")
    lines = re.findall(r"^.*-- +python -m jobs\.pipeline.*$", text, re.M)
    assert lines
    for line in lines:
        check_pipeline_command(line)


def test_an_image_holds_the_code_and_no_history_runs_or_scans():
    patterns = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]

    def ignored(path: str) -> bool:
        if any(fnmatch.fnmatch(path, one[1:]) for one in patterns if one.startswith("!")):
            return False
        folders = [path, *(str(one) for one in Path(path).parents if one != Path("."))]
        return any(
            fnmatch.fnmatch(one.rpartition("/")[2], pattern.removeprefix("**/"))
            if pattern.startswith("**/")
            else one == pattern.rstrip("/")
            for pattern in patterns
            for one in folders
        )

    for path in (
        ".git/HEAD",
        "runs/demo/mlflow.db",
        "scans/a.dcm",
        "x/set/train.parquet",
        "x/gan/generator.safetensors",
        ".venv/x",
    ):
        assert ignored(path), path
    code = [*ROOT.glob("gemix/**/*"), *ROOT.glob("jobs/**/*"), *ROOT.glob("tune/**/*")]
    code += [ROOT / "pyproject.toml", ROOT / "constraints.txt", ROOT / "README.md"]
    for path in code:
        if "__pycache__" not in path.parts:
            assert not ignored(path.relative_to(ROOT).as_posix()), path


def test_ray_serve_accepts_the_application():
    # of Ray Serve parts can be imported without its other packages, once it has failed to be
    pytest.importorskip("ray.serve", exc_type=ImportError)
    from ray.serve import schema

    tree = yaml.safe_load((INFRA / "serve.yaml").read_text())
    (application,) = schema.ServeDeploySchema.model_validate(tree).applications
    module, _, name = application.import_path.partition(":")
    built = getattr(importlib.import_module(module), name)(application.args)
    assert [one.name for one in application.deployments] == [built._bound_deployment.name]
    tree["applications"][0]["deployments"][0]["num_replicas"] = "many"
    with pytest.raises(ValueError, match="num_replicas"):
        schema.ServeDeploySchema.model_validate(tree)
