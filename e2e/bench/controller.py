#!/usr/bin/env python3
"""Measures the controller with many objects: resident memory, API writes while idle, and the time from a slot to its Job.

Starts etcd and kube-apiserver alone on loopback (no kubelet: the Jobs are made, not run), fills them, starts the release binary.
"""

import argparse
import contextlib
import concurrent.futures
import datetime
import json
import os
import pathlib
import http.client
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import servers
from servers import free_port, process, wait_for

TOKEN = "bench-token"
GROUP = "/apis/holdfast.dev/v1alpha1"


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--holdfast", required=True, type=pathlib.Path, help="the release binary")
    options.add_argument("--bin", required=True, type=pathlib.Path, help="folder with etcd and kube-apiserver")
    options.add_argument("--crds", required=True, type=pathlib.Path)
    options.add_argument("--kubectl", default="kubectl")
    options.add_argument("--policies", type=int, default=1000)
    options.add_argument("--backups", type=int, default=10_000)
    options.add_argument("--idle-seconds", type=int, default=60)
    options.add_argument("--slot-minutes", type=int, default=4)
    options = options.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    try:
        with api_server(folder, options.bin) as api:
            subprocess.run([options.kubectl, f"--kubeconfig={api.kubeconfig}", "apply", "--server-side", "-f", options.crds],
                           check=True, stdout=subprocess.DEVNULL)
            fill(api, options)
            measure(api, options, folder)
    finally:
        servers.remove(folder)


class Api:
    def __init__(self, port, kubeconfig):
        self.port, self.kubeconfig = port, kubeconfig
        self.context = ssl._create_unverified_context()  # our own server, on loopback, with a certificate of its own making
        self.local = threading.local()

    def connect(self):
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=120)

    def call(self, method, path, body=None, kind="application/json"):
        if not hasattr(self.local, "connection"):
            self.local.connection = self.connect()
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": kind}
        try:
            self.local.connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = self.local.connection.getresponse()
        except http.client.RemoteDisconnected:
            # The server closes connections that were idle for long.
            self.local.connection = self.connect()
            self.local.connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = self.local.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {text[:300]!r}")
        return text

    def writes(self):
        """Requests that changed something, but for renewals of Leases (the cost of being elected)."""
        total = 0
        for line in self.call("GET", "/metrics").decode().splitlines():
            if line.startswith("apiserver_request_total{"):
                labels, value = line.rsplit(" ", 1)
                if any(f'verb="{v}"' in labels for v in ("POST", "PUT", "PATCH", "APPLY", "DELETE")):
                    if 'resource="leases"' not in labels and 'client' not in labels:
                        total += float(value)
        return total


@contextlib.contextmanager
def api_server(folder, binaries):
    etcd_port, peer_port, port = free_port(), free_port(), free_port()
    (folder / "tokens").write_text(f'{TOKEN},bench,bench,"system:masters"\n')
    key = folder / "sa.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, stderr=subprocess.DEVNULL)
    etcd = [
        binaries / "etcd", f"--data-dir={folder / 'etcd'}", f"--listen-client-urls=http://127.0.0.1:{etcd_port}",
        f"--advertise-client-urls=http://127.0.0.1:{etcd_port}", f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}", f"--initial-cluster=default=http://127.0.0.1:{peer_port}",
        "--unsafe-no-fsync",
    ]
    server = [
        binaries / "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd_port}", "--bind-address=127.0.0.1",
        f"--secure-port={port}", f"--cert-dir={folder / 'certs'}", f"--token-auth-file={folder / 'tokens'}",
        "--authorization-mode=RBAC", f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
        "--service-account-issuer=https://bench", "--service-cluster-ip-range=10.97.0.0/24", "--allow-privileged",
        "--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none",
    ]
    with process(etcd, folder / "etcd.log"), process(server, folder / "apiserver.log"):
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {
                "server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}}],
            "users": [{"name": "bench", "user": {"token": TOKEN}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        }))
        api = Api(port, kubeconfig)

        def ready():
            try:
                connection = api.connect()
                connection.request("GET", "/readyz", headers={"Authorization": f"Bearer {TOKEN}"})
                return connection.getresponse().status == 200
            except OSError:
                return False

        wait_for("kube-apiserver", ready, 120)
        yield api


def instant(when):
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def fill(api, options):
    began = time.monotonic()
    now = datetime.datetime.now(datetime.UTC)
    namespaces = [f"team-{i:02d}" for i in range(20)]
    for namespace in namespaces:
        api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        api.call("POST", f"{GROUP}/namespaces/{namespace}/backupstores", {
            "apiVersion": "holdfast.dev/v1alpha1", "kind": "BackupStore", "metadata": {"name": "main"},
            "spec": {"s3": {"bucket": "backups", "endpoint": "http://s3.storage.svc:8333", "credentialsSecret": "s3"}}})
        # Nothing can prove this store, since no Job runs here: its status says what a probe would have.
        api.call("PATCH", f"{GROUP}/namespaces/{namespace}/backupstores/main/status", {
            "status": {"observedGeneration": 1, "lastProbeTime": instant(now), "conditions": [{
                "type": "Ready", "status": "True", "reason": "Probed", "message": "", "observedGeneration": 1,
                "lastTransitionTime": instant(now)}]}}, "application/merge-patch+json")

    api.policies = [(namespaces[i % len(namespaces)], f"app-{i:04d}") for i in range(options.policies)]

    def policy(i):
        namespace, name = api.policies[i]
        api.call("POST", f"{GROUP}/namespaces/{namespace}/backuppolicies", {
            "apiVersion": "holdfast.dev/v1alpha1", "kind": "BackupPolicy", "metadata": {"name": name},
            "spec": {"storeRef": {"name": "main"}, "schedule": "@yearly", "retention": {"keepLast": 7, "keepDaily": 7},
                     "sources": [{"name": "db", "postgres": {
                         "host": "postgres", "database": "app", "credentialsSecret": {"name": "postgres"}}}]}})
        # Nor can anything look through its bucket for backups.
        api.call("PATCH", f"{GROUP}/namespaces/{namespace}/backuppolicies/{name}/status", {"status": {"catalogue": {
            "place": "s3://backups at http://s3.storage.svc:8333", "found": 0, "more": 0}}}, "application/merge-patch+json")
        for j in range(options.backups // options.policies):
            slot = now - datetime.timedelta(days=j + 1)
            backup = f"{name}-{slot.strftime('%Y%m%d-%H%M%S')}"
            run = f"{slot.strftime('%Y%m%dT%H%M%SZ')}-{i % 0xffffff:06x}"
            api.call("POST", f"{GROUP}/namespaces/{namespace}/backups", {
                "apiVersion": "holdfast.dev/v1alpha1", "kind": "Backup", "metadata": {
                    "name": backup, "annotations": {"holdfast.dev/slot": instant(slot)},
                    "labels": {"holdfast.dev/scheduled": "true", "holdfast.dev/policy": name,
                               "app.kubernetes.io/managed-by": "holdfast"}},
                "spec": {"policyRef": {"name": name}}})
            api.call("PATCH", f"{GROUP}/namespaces/{namespace}/backups/{backup}/status", {"status": {
                "observedGeneration": 1, "phase": "Completed", "runId": run, "store": "main", "startTime": instant(slot),
                "completionTime": instant(slot + datetime.timedelta(seconds=42)), "duration": "42s", "storedBytes": 123456789,
                "sourceBytes": 987654321, "items": 42, "artifacts": [{
                    "source": "db", "phase": "Completed", "key": f"{namespace}/{name}/{run}/db/app-3f9a1c.pgdump.zst",
                    "storedBytes": 123456789, "sourceBytes": 987654321, "sha256": "0" * 64, "items": 42,
                    "serverVersion": "16.4", "toolVersion": "pg_dump 18.1", "encrypted": False}],
                "conditions": [{"type": "Complete", "status": "True", "reason": "Completed", "message": "1 source saved",
                                "observedGeneration": 1, "lastTransitionTime": instant(slot)}]}}, "application/merge-patch+json")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(policy, range(options.policies)))
    print(f"filled in {time.monotonic() - began:.0f} s", file=sys.stderr)


def memory(pid, field):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"no {field} of {pid}")


def cpu_seconds(pid):
    parts = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


def measure(api, options, folder):
    latencies, stop = [], threading.Event()
    watcher = threading.Thread(target=watch_jobs, args=(api, latencies, stop), daemon=True)
    env = {"PATH": os.environ["PATH"], "KUBECONFIG": str(api.kubeconfig), "HOLDFAST_IMAGE": "localhost/holdfast:bench"}
    command = [options.holdfast, "controller", f"--metrics-addr=127.0.0.1:{free_port()}", "--lease-namespace=default",
               # Nobody carries Jobs out here, so runs would wait for their turn for ever.
               "--max-concurrent-runs=0"]
    with process(command, folder / "controller.log", env=env) as controller:
        def still_runs():
            if controller.poll() is not None:
                raise SystemExit(f"the controller ended with {controller.returncode}: "
                                 + (folder / "controller.log").read_text()[-2000:])

        # Settled: every policy has its status, and a while passes without a write.
        last, since = api.writes(), time.monotonic()
        began = since
        while time.monotonic() - since < 5:
            time.sleep(1)
            still_runs()
            now = api.writes()
            if now != last:
                last, since = now, time.monotonic()
        print(f"settled after {time.monotonic() - began:.0f} s", file=sys.stderr)
        watcher.start()
        # Idle: nothing is due for months, so what is written is written for nothing.
        idle_seconds = options.idle_seconds
        writes, cpu = api.writes(), cpu_seconds(controller.pid)
        time.sleep(idle_seconds)
        still_runs()
        idle_writes, idle_cpu = api.writes() - writes, cpu_seconds(controller.pid) - cpu
        idle_memory = memory(controller.pid, "VmRSS")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for meta in api.policies:
                pool.submit(api.call, "PATCH", f"{GROUP}/namespaces/{meta[0]}/backuppolicies/{meta[1]}",
                            {"spec": {"schedule": "H * * * *"}}, "application/merge-patch+json")
        time.sleep(60 * options.slot_minutes)
        still_runs()
        stop.set()
        print(f"{options.policies} policies, {options.backups} Backups\n\n| | |\n|---|---|")
        print(f"| resident memory, idle | {idle_memory:.0f} MiB |")
        print(f"| resident memory, peak | {memory(controller.pid, 'VmHWM'):.0f} MiB |")
        print(f"| API writes in {idle_seconds:.0f} s without a slot | {idle_writes:.0f} |")
        print(f"| CPU of these | {idle_cpu:.2f} s |")
        if not latencies:
            raise SystemExit("no Job was made: " + (folder / "controller.log").read_text()[-2000:])
        ordered = sorted(latencies)
        p99 = ordered[max(0, round(len(ordered) * 0.99) - 1)]
        print(f"| slot to Job, {len(ordered)} slots | median {statistics.median(ordered):.2f} s, p99 {p99:.2f} s, "
              f"longest {ordered[-1]:.2f} s |")


def watch_jobs(api, latencies, stop):
    """Times each new backup Job by when a watcher hears of it: creationTimestamp has whole seconds only."""
    connection = api.connect()
    connection.request("GET", "/apis/batch/v1/jobs?watch=true", headers={"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    known = time.time()
    while not stop.is_set():
        line = answer.readline()
        if not line:
            # The API server ends every watch after a while.
            return None if stop.is_set() else watch_jobs(api, latencies, stop)
        event = json.loads(line)
        heard = time.time()
        job = event["object"]
        if event["type"] != "ADDED" or heard - known < 1:
            continue
        for variable in job["spec"]["template"]["spec"]["containers"][0]["env"]:
            if variable["name"] == "HOLDFAST_TASK":
                task = json.loads(variable["value"])
                if task["kind"] == "Backup":
                    slot = datetime.datetime.fromisoformat(task["slot"].replace("Z", "+00:00")).timestamp()
                    latencies.append(heard - slot)


if __name__ == "__main__":
    main()
