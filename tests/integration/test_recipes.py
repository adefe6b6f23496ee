"""The DAGs and connection commands of README.md and docs/, and an example DAG, in a real Airflow."""

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_3_PLUS

from airflow_modelarts.connection.fields import AUTH_KINDS
from airflow_modelarts.testing.emulator import EmulatorServer
from airflow_modelarts.testing.emulator.service import accounts, trust
from airflow_modelarts.testing.sandbox import Sandbox, TaskInstance
from tests.support.airflow_runs import files_with_secrets
from tests.support.documents import EXAMPLES, ROOT, SHELL
from tests.support.waiting import TIMEOUT

EXAMPLE = ROOT / "dags_examples" / "feature_analysis.py"
READING = ROOT / "dags_examples" / "read_the_output.py"
#: The example "run" with another template too, one without a result.
RECIPES = EXAMPLES | {
    "swapped": EXAMPLES["run"].replace("sys_data_analyse", "sys_data_validation").replace("analyse_f", "other_f")
}
#: By example, its DAG and the tasks that its run has in the end.
DAGS = {
    "wait": ("wait_for_a_task", ["wait", "read"]),
    "run": ("analyse_features", ["analyse", "report"]),
    "swapped": ("other_features", ["analyse", "report"]),
    "chain": ("clean_then_augment", ["clean", "augment"]),
    "many": ("many", ["validate[0]", "validate[1]", "active", "wait[0]"]),
    "audit": ("audit", ["audit"]),
    "rest": ("the_rest", ["stop", "again", "update", "delete"]),
    "export": ("export_results", ["export", "measure"]),
    "output": ("read_output", ["validate", "summarise", "show"]),
    "fail_fast": ("wait_and_fail_fast", ["wait"]),
    "retry_policy": ("clean_with_policy", ["clean"]),
    "goes_on": ("clean_whatever_happens", ["clean"]),
    "reuse": ("clean_once_a_dataset", ["clean"]),
    "audit_failures": ("audit_of_failures", ["failures"]),
}
SECRETS = {"ACCESS_KEY": "FAKEKEY", "SECRET_KEY": "fake-secret", "IAM_USER": "ada", "IAM_PASSWORD": "fake-password"}


def adapted(recipe: str, folder: Path) -> str:
    """Return an example that polls each second, writes below a folder, and imports from the installed Airflow."""
    recipe = re.sub(r"(poke|poll)_interval=\d+", r"\1_interval=1", recipe)
    default = r"(Create\w+Operator.*?deferrable=True)(?!.{0,12}poll_interval)"
    recipe = re.sub(default, r"\1, poll_interval=1", recipe, flags=re.DOTALL)
    recipe = recipe.replace("/tmp/", f"{folder}/")
    return recipe if AIRFLOW_V_3_0_PLUS else recipe.replace("airflow.sdk", "airflow.providers.common.compat.sdk")


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorServer]:
    """Start an emulator for this module alone: one example waits for all active tasks."""
    with EmulatorServer(task_duration=2.0) as server:
        yield server


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="am-") as made:
        yield Path(made)


@pytest.fixture(scope="module")
def reader(folder: Path, emulator: EmulatorServer) -> Iterator[Sandbox]:
    """Start an Airflow whose DAG folder holds the examples."""
    dags = folder / "dags"
    dags.mkdir()
    for name in DAGS:
        (dags / f"{name}.py").write_text(adapted(RECIPES[name], folder))
    for example in (EXAMPLE, READING):
        (dags / example.name).write_text(example.read_text())
    (dags / "by_kind.py").write_text((Path(__file__).parent / "recipe_dags" / "by_kind.py").read_text())
    connections = {"modelarts_default": emulator.airflow_connection(), **connections_by_kind(emulator)}
    environment = credentials_of_the_machine(emulator, folder)
    with Sandbox(dags, connections=connections, environment=environment) as running:
        yield running


def connections_by_kind(emulator: EmulatorServer) -> dict[str, str]:
    """Return a connection for each kind of the DAG ``by_kind``."""
    agency = {"source_auth": "profile", "agency_name": trust.AGENCY_NAME, "project_id": accounts.OTHER_PROJECT_ID}
    extras = {kind: {"project_id": accounts.PROJECT_ID} for kind in ("profile", "oidc", "pod_identity", "default")}
    extras["assume_agency"] = {**agency, "agency_domain_name": trust.AGENCY_DOMAIN_NAME}
    return {
        f"by_{kind}": json.dumps({"conn_type": "modelarts", "host": emulator.url, "extra": {"auth": kind, **extra}})
        for kind, extra in extras.items()
    }


def credentials_of_the_machine(emulator: EmulatorServer, folder: Path) -> dict[str, str]:
    """Write the files that the kinds need, and return the variables that name them."""
    files = {
        "profile": f"[basic]\nak = {accounts.ACCESS_KEY}\nsk = {accounts.SECRET_KEY}\n",
        "id-token": trust.issue_id_token(now=time.time()),
        "pod-token": trust.POD_TOKEN,
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return {
        "HUAWEICLOUD_SDK_IAM_ENDPOINT": emulator.url,
        "HUAWEICLOUD_SDK_STS_ENDPOINT": emulator.url,
        "HUAWEICLOUD_SDK_CREDENTIALS_FILE": str(folder / "profile"),
        "HUAWEICLOUD_OIDC_PROVIDER_URN": trust.PROVIDER_URN,
        "HUAWEICLOUD_OIDC_AGENCY_URN": trust.OIDC_AGENCY_URN,
        "HUAWEICLOUD_OIDC_TOKEN_FILE": str(folder / "id-token"),
        "HC_CONTAINER_CREDENTIALS_FULL_URI": f"{emulator.url}/pod-identity/credentials",
        "HC_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(folder / "pod-token"),
    }


def start_by_hand(reader: Sandbox, dag_id: str, conf: dict[str, str]) -> str:
    """Start a run by hand; in Airflow 3 it has no logical date."""
    run_id = "by_hand"
    reader.airflow("dags", "trigger", dag_id, "--run-id", run_id, "--conf", json.dumps(conf))
    return run_id


def test_the_examples_run_unchanged(reader: Sandbox, emulator: EmulatorServer, folder: Path) -> None:
    waited_for = emulator.state.add_task(duration=8)
    again = emulator.state.add_task(template="sys_data_validation", status=2)
    exported = emulator.state.add_task(template="sys_data_validation", status=2)
    active = emulator.state.add_task(duration=10_000)  # for the example that waits for all active tasks
    reader.wait_for_dags(*(dag_id for dag_id, _ in DAGS.values()), timeout=TIMEOUT)
    ids = {"wait": waited_for.task_id, "rest": again.task_id, "export": exported.task_id}
    ids["fail_fast"] = exported.task_id
    runs = {
        name: start_by_hand(reader, dag_id, conf={"processor_task_id": ids[name]} if name in ids else {})
        for name, (dag_id, _) in DAGS.items()
    }

    def finish_what_was_listed(instances: list[TaskInstance]) -> None:
        if any((instance.task_id, instance.state) == ("active", "success") for instance in instances):
            emulator.state.finish(active.task_id)

    for name, (dag_id, expected) in DAGS.items():
        state = reader.wait(dag_id, runs[name], timeout=TIMEOUT, watch=finish_what_was_listed)
        instances = {instance.label: instance.state for instance in reader.task_instances(dag_id, runs[name])}
        assert state == "success", (name, instances)
        assert set(expected) <= set(instances), name
    values = {(x.label, x.key): x.value for x in reader.xcoms("many", runs["many"])}
    assert active.task_id in [task["task_id"] for task in values["active", "return_value"]]
    (report,) = (folder / "modelarts-audit").glob("*.html")
    assert "<h1>Processing tasks" in report.read_text(), "the window may hold no task"
    (results,) = (folder / "modelarts-results").glob("*.jsonl.gz")
    assert results.stat().st_size > 0
    values = {(x.label, x.key): x.value for x in reader.xcoms("read_output", runs["output"])}
    assert values["validate", "output_files"]["V001/result.json"]["origin_sample_count"] == 16
    assert values["summarise", "return_value"]["files"] == 20


def test_the_example_reads_what_the_processing_task_wrote(reader: Sandbox, emulator: EmulatorServer) -> None:
    dag_id = READING.stem
    reader.wait_for_dags(dag_id, timeout=180)
    run_id = start_by_hand(reader, dag_id, {"folder": "s3://my-bucket/a b+1%/数据/x"})
    assert reader.wait(dag_id, run_id, timeout=240) == "success"
    (summary,) = [x.value for x in reader.xcoms(dag_id, run_id) if (x.label, x.key) == ("summarise", "return_value")]
    assert summary["files"] == 20
    assert summary["documents"]["V001/result.json"]["version_name"] == "V001"
    assert files_with_secrets(reader, emulator) == []


def test_an_example_runs_without_a_logical_date(reader: Sandbox) -> None:
    """Runs that are started by hand have none in Airflow 3."""
    dag_id, run_id = EXAMPLE.stem, "by_hand"
    reader.wait_for_dags(dag_id, timeout=TIMEOUT)
    reader.airflow("dags", "trigger", dag_id, "--run-id", run_id)
    assert reader.wait(dag_id, run_id, timeout=TIMEOUT) == "success"
    (path,) = [xcom.value["path"] for xcom in reader.xcoms(dag_id, run_id) if xcom.key == "work_path"]
    assert re.fullmatch(r"obs://my-bucket/analysis/\d{8}T\d{6}/", path)


def test_each_kind_of_the_machine_works_on_a_worker_and_in_the_triggerer(
    reader: Sandbox, emulator: EmulatorServer
) -> None:
    projects = dict.fromkeys(("profile", "oidc", "pod_identity", "default"), accounts.PROJECT_ID)
    projects["assume_agency"] = accounts.OTHER_PROJECT_ID
    tasks = {kind: emulator.state.add_task(project_id=id_, duration=10_000) for kind, id_ in projects.items()}
    reader.wait_for_dags("by_kind", timeout=180)
    run_id = start_by_hand(reader, "by_kind", {kind: task.task_id for kind, task in tasks.items()})

    def finish_what_is_deferred(instances: list[TaskInstance]) -> None:
        for instance in instances:
            if instance.state == "deferred" and instance.task_id in tasks:
                emulator.state.finish(tasks.pop(instance.task_id).task_id)

    assert reader.wait("by_kind", run_id, timeout=TIMEOUT, watch=finish_what_is_deferred) == "success"
    assert tasks == {}
    assert files_with_secrets(reader, emulator) == []


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="retry policies came with Airflow 3.3")
def test_a_retry_comes_when_the_service_asks_for_it(reader: Sandbox, emulator: EmulatorServer) -> None:
    """``retry_delay`` is an hour, and ``Retry-After`` a second."""
    dag_id, task = "delayed_by_the_service", emulator.state.add_task(status=2)
    reader.wait_for_dags(dag_id, timeout=180)
    fault = emulator.faults.answer(503, headers={"Retry-After": "1"}, operation="DescribeProcessorTask", times=None)

    def end_the_outage(instances: list[TaskInstance]) -> None:
        if any(instance.state == "up_for_retry" or instance.try_number > 1 for instance in instances):
            emulator.faults.remove(fault)

    run_id = start_by_hand(reader, dag_id, {"processor_task_id": task.task_id})
    assert reader.wait(dag_id, run_id, timeout=TIMEOUT, watch=end_the_outage) == "success"
    (instance,) = reader.task_instances(dag_id, run_id)
    assert instance.try_number > 1


#: By kind, the class of its credentials.
KINDS = {
    "access_key": "AccessKey",
    "password": "PasswordToken",
    "token": "StaticToken",
    "agency": "InstanceAgency",
    "environment": "AccessKey",
    "profile": "AccessKey",
    "oidc": "OidcAgency",
    "pod_identity": "PodIdentity",
    "assume_agency": "AssumeAgency",
    "default": "DefaultChain",
}


@pytest.mark.parametrize("auth", AUTH_KINDS)
def test_the_commands_make_connections_that_the_hook_can_read(reader: Sandbox, auth: str, tmp_path: Path) -> None:
    environment = {**reader.environment, **SECRETS, "IAM_TOKEN": "fake-token", "HUAWEICLOUD_SDK_AK": "FAKEKEY"}
    environment |= {"HUAWEICLOUD_SDK_SK": "fake-secret", "HUAWEICLOUD_SDK_PROJECT_ID": "0" * 32}
    profile, token = tmp_path / "credentials", tmp_path / "token"
    profile.write_text("[basic]\nak = FAKEKEY\nsk = fake-secret\n")
    token.write_text("fake-token")
    environment |= {
        "HUAWEICLOUD_SDK_CREDENTIALS_FILE": str(profile),
        "HC_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.2/v1",
        "HC_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token),
    }
    if auth == "oidc":  # in the chain it has precedence over the key
        urns = {f"HUAWEICLOUD_OIDC_{name}_URN": "iam::fake" for name in ("PROVIDER", "AGENCY")}
        environment |= {**urns, "HUAWEICLOUD_OIDC_TOKEN_FILE": str(token)}
    name = f"readme_{auth}"
    read = (
        "import sys; from airflow_modelarts.hooks import ModelArtsHook; "
        f"client = ModelArtsHook('{name}').get_conn().client; "
        "print(type(client.credentials).__name__, client.endpoint)"
    )
    script = SHELL[f"shell: {auth}"].replace("modelarts_default", name)
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], env=environment, check=True, capture_output=True)
    command = ["airflow", "connections", "get", name, "-o", "json"]
    shown = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    (stored,) = json.loads(shown[shown.index("[") :])
    variable = {f"AIRFLOW_CONN_{name.upper()}": stored["get_uri"]}
    python = ["python", "-c", read]
    printed = subprocess.run(python, env=environment | variable, check=True, capture_output=True, text=True).stdout
    assert printed.splitlines()[-1].startswith(f"{KINDS[auth]} https://modelarts.")


def test_airflow_tests_a_connection_and_says_who_calls(reader: Sandbox, emulator: EmulatorServer) -> None:
    key = {"HUAWEICLOUD_SDK_AK": accounts.ACCESS_KEY, "HUAWEICLOUD_SDK_SK": accounts.SECRET_KEY}
    connection = {"conn_type": "modelarts", "host": emulator.url}
    extra = {"auth": "default", "region": accounts.REGION}
    environment = {
        **{name: value for name, value in reader.environment.items() if not name.startswith("HUAWEICLOUD_OIDC_")},
        **key,
        "HUAWEICLOUD_SDK_IAM_ENDPOINT": emulator.url,
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW_CONN_BY_CHAIN": json.dumps({**connection, "extra": extra}),
    }
    command = ["airflow", "connections", "test", "by_chain"]
    shown = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    said = " ".join(shown.stdout.split())
    assert f"auth 'default' took 'environment': access key '{accounts.ACCESS_KEY}'" in said
    assert accounts.SECRET_KEY not in shown.stdout + shown.stderr
