"""The rendered manifests, held against the code, against the compose file, and against each other.

Every overlay, and the laptop's with every component and every pair of them. Skips where there is no kubectl to render.
"""

import copy
import itertools
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet
from pydantic import ValidationError

import prime
from benchmarks.capacity import CARD_GIB, prm_gib
from benchmarks.training import SHAPES, peak_gib
from prime.adapters.settings import COLLECTOR_VARIABLE
from primectl.config import load_config
from primectl.main import _parse
from tests.unit.test_deploy import port_of, variables_that_the_code_reads

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl, which renders")

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
OVERLAYS = sorted(folder.name for folder in (K8S / "overlays").iterdir())
COMPONENTS = sorted(folder.name for folder in (K8S / "components").iterdir())
OURS = {"verifier", "prm", "rollout", "trainer", "dashboard"}
SERVICES_BY_PORT = {50050: "TrainerService", 50051: "RolloutService", 50052: "PrmService", 50053: "VerifierService"}
POD_OWNERS = ("Deployment", "StatefulSet", "Job", "JobSet")

Manifest = dict[str, Any]


@cache
def rendered(folder: Path) -> tuple[Manifest, ...]:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def overlay(name: str) -> tuple[Manifest, ...]:
    return rendered(K8S / "overlays" / name)


def of_kind(name: str, kind: str) -> list[Manifest]:
    return [each for each in overlay(name) if each["kind"] == kind]


def owners(manifests: Iterable[Manifest]) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] in POD_OWNERS}


def template_of(owner: Manifest) -> dict[str, Any]:
    inner = owner["spec"]["replicatedJobs"][0]["template"] if owner["kind"] == "JobSet" else owner
    template: dict[str, Any] = inner["spec"]["template"]
    return template


def pod_of(owner: Manifest) -> dict[str, Any]:
    spec: dict[str, Any] = template_of(owner)["spec"]
    return spec


def labels_of(owner: Manifest) -> dict[str, str]:
    labels: dict[str, str] = template_of(owner)["metadata"]["labels"]
    return labels


def has_probes(owner: Manifest) -> bool:
    """Of the nodes of a JobSet one alone serves."""
    return bool(owner["kind"] != "JobSet")


def run_settings(name: str) -> Path:
    return K8S / "overlays" / name / "run.toml"


@pytest.mark.parametrize("name", OVERLAYS)
def test_pods_are_walled_in(name: str) -> None:
    for owner in owners(overlay(name)).values():
        pod, who = pod_of(owner), owner["metadata"]["name"]
        assert pod["securityContext"]["runAsNonRoot"], who
        assert pod["securityContext"]["runAsUser"] >= 10000, who
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, who
        assert pod["automountServiceAccountToken"] is False, who
        for container in pod["containers"] + pod.get("initContainers", []):
            walls = container["securityContext"]
            assert walls["readOnlyRootFilesystem"], who
            assert walls["allowPrivilegeEscalation"] is False, who
            assert walls["capabilities"] == {"drop": ["ALL"]}, who
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), who
            assert "memory" in container["resources"]["limits"], who


@pytest.mark.parametrize("name", OVERLAYS)
def test_images_are_of_this_version(name: str) -> None:
    for owner in owners(overlay(name)).values():
        pod = pod_of(owner)
        for container in pod["containers"] + pod.get("initContainers", []):
            if container["image"].startswith("prime-"):
                assert container["image"].endswith(f":{prime.__version__}"), container["name"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_probes_ports_and_names_are_those_of_the_code(name: str) -> None:
    config = load_config(run_settings(name), [])
    found = owners(overlay(name))
    for service in ("verifier", "prm", "rollout", "trainer"):
        (container,) = pod_of(found[service])["containers"]
        section = getattr(config, service)
        ports = {port["containerPort"] for port in container["ports"]}
        assert ports == {port_of(section.listen), port_of(section.ops_listen)}, service
        assert section.listen.startswith("0.0.0.0:")
        grpc = port_of(section.listen)
        if has_probes(found[service]):
            asked = {"port": grpc, "service": f"prime.v1.{SERVICES_BY_PORT[grpc]}"}
            assert container["readinessProbe"]["grpc"] == asked
            for probe in ("livenessProbe", "startupProbe"):
                assert container[probe]["grpc"]["port"] == grpc
        sources = (ROOT / "services" / service / "main.py").read_text()
        assert f'"prime.v1.{SERVICES_BY_PORT[grpc]}"' in sources
        (exposed,) = [
            each for each in overlay(name) if each["kind"] == "Service" and each["metadata"]["name"] == service
        ]
        assert {port["port"] for port in exposed["spec"]["ports"]} == ports


@pytest.mark.parametrize("name", OVERLAYS)
def test_models_are_given_an_hour_to_load(name: str) -> None:
    slow = (owners(overlay(name))[service] for service in ("prm", "rollout", "trainer"))
    for owner in filter(has_probes, slow):
        (container,) = pod_of(owner)["containers"]
        assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 3600


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_grace_covers_pause_and_drain(name: str) -> None:
    config = load_config(run_settings(name), [])
    for service in ("verifier", "prm", "rollout", "trainer"):
        pod = pod_of(owners(overlay(name))[service])
        (container,) = pod["containers"]
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert pod["terminationGracePeriodSeconds"] >= pause + getattr(config, service).grace_seconds + 10


@pytest.mark.parametrize("name", OVERLAYS)
def test_commands_and_variables_are_ones_that_the_code_takes(name: str) -> None:
    known = variables_that_the_code_reads()
    for owner in owners(overlay(name)).values():
        pod = pod_of(owner)
        for container in pod["containers"] + pod.get("initContainers", []):
            if container["image"].startswith("prime-"):
                _parse(container["args"])
                # What torchrun is told is read by its command line.
                assert {each["name"] for each in container.get("env", [])} - {"JOB_COMPLETION_INDEX"} <= known


@pytest.mark.parametrize("name", OVERLAYS)
def test_selectors_find_their_pods_and_volumes_their_sources(name: str) -> None:
    manifests = overlay(name)
    pods = [labels_of(owner) for owner in owners(manifests).values()]
    for each in manifests:
        if each["kind"] == "Service":
            assert any(each["spec"]["selector"].items() <= labels.items() for labels in pods), each["metadata"]["name"]
        if each["kind"] in ("Deployment", "StatefulSet"):
            assert each["spec"]["selector"]["matchLabels"].items() <= labels_of(each).items()
    maps = {each["metadata"]["name"] for each in manifests if each["kind"] == "ConfigMap"}
    claims = {each["metadata"]["name"] for each in manifests if each["kind"] == "PersistentVolumeClaim"}
    for owner in owners(manifests).values():
        volumes = pod_of(owner)["volumes"]
        assert {each["configMap"]["name"] for each in volumes if "configMap" in each} <= maps
        assert {
            each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each
        } <= claims
        assert {each["secret"]["secretName"] for each in volumes if "secret" in each} <= {"prime-secrets"}


def test_what_runs_foreign_programs_has_no_more_secrets_than_its_token() -> None:
    volumes = pod_of(owners(overlay("laptop"))["verifier"])["volumes"]
    (secret,) = [each["secret"] for each in volumes if "secret" in each]
    assert [item["key"] for item in secret["items"]] == ["token"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_gpus_are_as_many_as_processes(name: str) -> None:
    config = load_config(run_settings(name), [])
    for service, count in (("trainer", config.trainer.processes), ("prm", config.prm.processes)):
        owner = owners(overlay(name))[service]
        (container,) = pod_of(owner)["containers"]
        nodes = 1
        if owner["kind"] == "JobSet":
            nodes = owner["spec"]["replicatedJobs"][0]["template"]["spec"]["parallelism"]
        assert container["resources"]["limits"].get("nvidia.com/gpu", 1) * nodes == count
        if count > 1:
            assert f"--nproc-per-node={count // nodes}" in container["command"]
        if nodes > 1:
            assert f"--nnodes={nodes}" in container["command"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_models_fit_the_gpus_that_they_are_given(name: str) -> None:
    """By the formula of `make bench-training`, for cards of 80 GB."""
    config = load_config(run_settings(name), [])
    if "7b" not in str(config.run.model):
        return
    shape = SHAPES["7B"]
    assert config.trainer.compute.recompute and config.prm.compute.recompute  # noqa: PT018
    assert peak_gib(shape, tokens=config.trainer.optimiser.token_budget, gpus=config.trainer.processes) < CARD_GIB
    assert prm_gib(shape, tokens=config.prm.token_budget, gpus=config.prm.processes) < CARD_GIB


def test_a_jobset_is_one_that_its_controller_takes() -> None:
    """And the model refuses another. It knows quantities only in a form of its own, so these are left out."""
    (jobset,) = copy.deepcopy(of_kind("multi-node", "JobSet"))
    (container,) = pod_of(jobset)["containers"]
    del container["resources"]
    for volume in pod_of(jobset)["volumes"]:
        volume.get("emptyDir", {}).pop("sizeLimit", None)
    JobsetV1alpha2JobSet.model_validate(jobset)
    spec = jobset["spec"]
    with pytest.raises(ValidationError, match="failurePolicy"):
        JobsetV1alpha2JobSet.model_validate(jobset | {"spec": spec | {"failurePolicy": {"maxRestarts": "many"}}})
    assert f"--master-addr=trainer-node-0-0.{spec['network']['subdomain']}" in container["command"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_replicas_are_scaled_by_the_stream_of_this_run(name: str) -> None:
    config = load_config(run_settings(name), [])
    for scaled in of_kind(name, "ScaledObject"):
        (trigger,) = scaled["spec"]["triggers"]
        assert trigger["metadata"]["stream"] == f"prime:{config.run.name}:requests"
        assert trigger["metadata"]["consumerGroup"] == "rollout"


def test_the_laptop_runs_what_compose_runs() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert {name for name, each in compose.items() if "profiles" not in each} == set(owners(overlay("laptop")))
    ours = tomllib.loads(run_settings("laptop").read_text())
    assert ours == tomllib.loads((ROOT / "deploy" / "configs" / "demo.toml").read_text())


# ---------------------------------------------------------------- who reaches whom


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "In"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


class Walls:
    """Kubernetes' rule: what some policy selects may only do what one of those that select it allows."""

    def __init__(self, manifests: Iterable[Manifest]) -> None:
        manifests = list(manifests)
        self.pods = {name: labels_of(owner) for name, owner in owners(manifests).items()}
        self._policies = [each["spec"] for each in manifests if each["kind"] == "NetworkPolicy"]

    def _allows(self, who: str, direction: str, peer: str | None, port: int) -> bool:
        policies = [
            spec
            for spec in self._policies
            if direction in spec["policyTypes"] and matches(spec["podSelector"], self.pods[who])
        ]
        if not policies:
            return True
        side = "from" if direction == "Ingress" else "to"
        for rule in (rule for spec in policies for rule in spec.get(direction.lower(), [])):
            fits = "ports" not in rule or any(each["port"] == port for each in rule["ports"])
            if fits and (side not in rule or any(self._is_peer(each, peer) for each in rule[side])):
                return True
        return False

    def _is_peer(self, allowed: Mapping[str, Any], peer: str | None) -> bool:
        if "namespaceSelector" in allowed:
            return peer is not None and matches(allowed["namespaceSelector"], {"kubernetes.io/metadata.name": peer})
        return peer in self.pods and matches(allowed["podSelector"], self.pods[str(peer)])

    def reaches(self, source: str | None, target: str | None, port: int) -> bool:
        """None: anything that is no pod of ours. A name of no pod: a namespace."""
        leaves = source not in self.pods or self._allows(str(source), "Egress", target, port)
        enters = target not in self.pods or self._allows(str(target), "Ingress", source, port)
        return leaves and enters


PORTS = (53, 80, 443, 6379, 9150, 9151, 9152, 9153, 9160, 50050, 50051, 50052, 50053)


@pytest.mark.parametrize("name", OVERLAYS)
def test_who_reaches_whom(name: str) -> None:
    walls = Walls(overlay(name))
    reached = {
        (source, target, port)
        for source, target in itertools.permutations(walls.pods, 2)
        for port in PORTS
        if walls.reaches(source, target, port)
    }
    peers = {("trainer", "rollout", port) for port in PORTS} | {("rollout", "trainer", port) for port in PORTS}
    past_grpc = load_config(run_settings(name), []).trainer.push == "nccl"
    assert reached == (peers if past_grpc else set()) | {
        ("trainer", "redis", 6379),
        ("trainer", "rollout", 50051),
        ("trainer", "prm", 50052),
        ("trainer", "verifier", 50053),
        ("rollout", "redis", 6379),
        ("prm", "rollout", 50051),
        ("prm", "verifier", 50053),
    }


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_sandbox_reaches_nothing_and_only_the_api_is_reached_from_outside(name: str) -> None:
    walls = Walls(overlay(name))
    for port in PORTS:
        for target in (*walls.pods, None, "kube-system", "monitoring"):
            assert target == "verifier" or not walls.reaches("verifier", target, port), (target, port)
        for pod in walls.pods:
            assert walls.reaches(None, pod, port) == ((pod, port) == ("prm", 9152)), (pod, port)
            assert not walls.reaches(pod, None, port), (pod, port)
    assert walls.reaches("monitoring", "verifier", 9153)
    assert walls.reaches("trainer", "kube-system", 53)


def test_without_policies_everybody_reaches_everybody() -> None:
    """So that the solver cannot be right by finding nothing at all."""
    walls = Walls(each for each in overlay("laptop") if each["kind"] != "NetworkPolicy")
    assert walls.reaches("verifier", "redis", 6379)
    assert walls.reaches(None, "trainer", 50050)


# ---------------------------------------------------------------- every mix of components


def mix(folder: Path, components: Iterable[str]) -> tuple[Manifest, ...]:
    to_root = os.path.relpath(K8S, folder.resolve())
    (folder / "run.toml").write_text(run_settings("laptop").read_text())
    text = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "prime",
        "resources": [f"{to_root}/base"],
        "components": [f"{to_root}/components/{name}" for name in components],
        "configMapGenerator": [{"name": "run", "files": ["run.toml"]}],
        "generatorOptions": {"disableNameSuffixHash": True},
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(text))
    return rendered(folder)


@pytest.mark.parametrize("components", [*itertools.combinations(COMPONENTS, 2), tuple(COMPONENTS)], ids="+".join)
def test_components_go_together(tmp_path: Path, components: tuple[str, ...]) -> None:
    manifests = mix(tmp_path, components)
    names = [(each["kind"], each["metadata"]["name"]) for each in manifests]
    assert len(set(names)) == len(names)
    assert set(owners(manifests)) >= OURS
    assert ("redis" in owners(manifests)) == ("external-redis" not in components)
    pods = owners(manifests)
    for each in manifests:
        if each["kind"] in ("PodDisruptionBudget", "NetworkPolicy"):
            selector = each["spec"].get("selector") or each["spec"]["podSelector"]
            found = [name for name, owner in pods.items() if matches(selector, labels_of(owner))]
            assert found or each["metadata"]["name"] in ("redis", "otel-collector"), each["metadata"]["name"]
        if "scaleTargetRef" in each.get("spec", {}):
            assert each["spec"]["scaleTargetRef"]["name"] in pods
    if "gpu" in components:
        for name in ("prm", "rollout", "trainer"):
            (container,) = pod_of(pods[name])["containers"]
            assert container["resources"]["limits"]["nvidia.com/gpu"] == (8 if pods[name]["kind"] == "JobSet" else 1)
    assert (pods["trainer"]["kind"] == "JobSet") == ("jobset" in components)
    if {"peer-traffic", "network-policies"} & set(components) != {"peer-traffic"}:
        walls = Walls(manifests)
        assert walls.reaches("trainer", "rollout", 50051)
        assert walls.reaches("trainer", "prm", 50052)
        assert walls.reaches("trainer", "rollout", 41234) == (
            "peer-traffic" in components or "network-policies" not in components
        )
    if "otel" in components:
        given = {
            (name, each["value"])
            for name, owner in pods.items()
            for each in pod_of(owner)["containers"][0].get("env", [])
            if each["name"] == COLLECTOR_VARIABLE
        }
        assert given == {(name, "http://otel-collector:4317") for name in ("trainer", "rollout", "prm")}
        if "network-policies" in components:
            walls = Walls(manifests)
            reaching = {
                name for name in pods if name != "otel-collector" and walls.reaches(name, "otel-collector", 4317)
            }
            assert reaching == {"trainer", "rollout", "prm"}


def test_every_folder_of_the_components_is_explained() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    explained = set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE))
    assert set(COMPONENTS) | set(OVERLAYS) <= explained


@pytest.mark.parametrize("others", [(), ("jobset",), ("network-policies", "tier-a")], ids="+".join)
def test_with_mtls_every_service_has_a_certificate_of_its_own_name(tmp_path: Path, others: tuple[str, ...]) -> None:
    manifests = mix(tmp_path, sorted(("mtls", *others)))
    certificates = {each["spec"]["secretName"]: each["spec"] for each in manifests if each["kind"] == "Certificate"}
    for service in ("verifier", "prm", "rollout", "trainer"):
        pod = pod_of(owners(manifests)[service])
        (container,) = pod["containers"]
        (source,) = [each["secret"]["secretName"] for each in pod["volumes"] if each["name"] == "tls"]
        # What peers call it by, see `peers` in run.toml.
        assert service in certificates[source]["dnsNames"]
        assert {"server auth", "client auth"} <= set(certificates[source]["usages"])
        assert "run.tls_folder=/secrets/tls" in container["args"]
        assert {"name": "tls", "mountPath": "/secrets/tls", "readOnly": True} in container["volumeMounts"]
        # A kubelet has no certificate to show.
        assert not [name for name in container if name.endswith("Probe") and "grpc" in container[name]]
