#!/usr/bin/env python3
"""Measures the worker beside the pipes of stock tools that it replaces: one database, one S3 server, interleaved rounds.

Wall time, CPU time of the client side (not of the servers), peak resident memory (of a pipe: the sum of its processes' peaks; of the
worker: its own, with the largest of its tools beside it) and stored bytes. Prints a Markdown table of medians, with minimum and maximum.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import servers
from servers import POSTGRES_BIN, PASSWORD

DATABASE = "bench"
SEED = """
CREATE EXTENSION pgcrypto;
CREATE TABLE notes AS
  SELECT i AS id, jsonb_build_object(
    'id', i, 'title', 'note ' || md5(i::text), 'tags', jsonb_build_array(md5((i % 97)::text), md5((i % 13)::text)),
    'body', repeat(md5((i::bigint * 7)::text) || ' and then some words that repeat ', 4), 'score', (i::bigint * 7919) % 1000) AS body
  FROM generate_series(1, {notes}) AS i;
ALTER TABLE notes ADD PRIMARY KEY (id);
CREATE TABLE files AS
  SELECT i AS id, (SELECT string_agg(gen_random_bytes(1024), NULL) FROM generate_series(1, 32 + i * 0)) AS content
  FROM generate_series(1, {files}) AS i;
ALTER TABLE files ADD PRIMARY KEY (id);
"""


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--holdfast", required=True, type=pathlib.Path, help="the release binary")
    options.add_argument("--weed", required=True, help="the S3 server's binary")
    options.add_argument("--rclone", required=True)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--gigabytes", type=float, default=1.3, help="size of the database")
    options.add_argument("--redis-megabytes", type=int, default=300, help="size of the Redis dump")
    options.add_argument("--volume-files", type=int, default=20_000, help="small files of the volume, of 1 to 100 KB each")
    options.add_argument("--volume-large", type=int, default=10, help="large files of the volume, of 150 MB each")
    options.add_argument("--mongodb-floor", type=pathlib.Path, help="the release binary of the example mongodb_floor; without it MongoDB is left out")
    options.add_argument("--mongodb-documents", type=int, default=1_000_000, help="documents of MongoDB, in 5 collections")
    options.add_argument("--only", action="append", metavar="REGEX", help="measurements to make; all without it")
    options = options.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    os.chmod(folder, 0o755)
    try:
        with servers.postgres(folder / "postgres") as port, \
                servers.redis(folder / "redis") as redis_port, \
                servers.mongodb(folder / "mongodb") if options.mongodb_floor else contextlib.nullcontext() as mongodb, \
                servers.s3(folder / "s3", options.weed, options.rclone) as (endpoint, rclone_env):
            bench = Bench(options, folder, port, endpoint, rclone_env, redis_port, mongodb)
            bench.run()
    finally:
        servers.remove(folder)


class Bench:
    def __init__(self, options, folder, port, endpoint, rclone_env, redis_port, mongodb):
        self.options, self.folder, self.port, self.endpoint, self.redis_port = options, folder, port, endpoint, redis_port
        self.size = self.redis_size = self.mongodb_size = self.volume_size = 0
        self.mongodb = mongodb
        self.env = {**rclone_env, "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres", "PGPASSWORD": PASSWORD}
        self.rounds = {}
        for name, files in {
            "store": {"AWS_ACCESS_KEY_ID": servers.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": servers.SECRET_KEY},
            "source": {"username": "postgres", "password": PASSWORD},
            "mongodb-source": {"uri": mongodb or ""},
        }.items():
            (folder / name).mkdir()
            for key, value in files.items():
                (folder / name / key).write_text(value)

    def sql(self, statement, database="postgres"):
        return subprocess.run(
            [POSTGRES_BIN / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database],
            input=statement, env=self.env, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def seed(self):
        scale = self.options.gigabytes / 1.3
        began = time.monotonic()
        self.sql(f"CREATE DATABASE {DATABASE}")
        subprocess.run(
            [POSTGRES_BIN / "pgbench", "-i", "-q", "-s", str(max(1, int(35 * scale))), DATABASE],
            env=self.env, check=True, stderr=subprocess.DEVNULL)
        self.sql(SEED.format(notes=int(700_000 * scale), files=int(8_000 * scale)), DATABASE)
        self.sql("VACUUM ANALYZE", DATABASE)
        self.sql("CHECKPOINT")
        size = int(self.sql(f"SELECT pg_database_size('{DATABASE}')"))
        print(f"database: {size / 1e9:.2f} GB, seeded in {time.monotonic() - began:.0f} s", file=sys.stderr)
        self.size = size

    def seed_redis(self):
        began = time.monotonic()
        child = subprocess.Popen(
            ["redis-cli", "-p", str(self.redis_port), "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        # 1 MB of the dump is some 1450 keys of this mix.
        for i in range(self.options.redis_megabytes * 1450):
            child.stdin.write(redis_command(i))
        child.stdin.close()
        if child.wait():
            raise SystemExit("redis-cli --pipe failed")
        subprocess.run(["redis-cli", "-p", str(self.redis_port), "SAVE"], check=True, stdout=subprocess.DEVNULL)
        self.redis_size = (self.folder / "redis" / "dump.rdb").stat().st_size
        print(f"Redis: a dump of {self.redis_size / 1e6:.0f} MB, seeded in {time.monotonic() - began:.0f} s", file=sys.stderr)

    def seed_volume(self):
        began = time.monotonic()
        dice = random.Random(7)
        noise, words = dice.randbytes(1 << 20), b"the quick brown fox jumps over the lazy dog %d\n" * 8
        for i in range(self.options.volume_files):
            folder = self.folder / "volume" / f"{i // 1000}" / f"{i // 50 % 20}"
            folder.mkdir(parents=True, exist_ok=True)
            size = dice.randint(1_000, 100_000)
            # Every other file is like a picture, which does not get smaller; the others are like text.
            if i % 2:
                at = dice.randrange(len(noise) - size)
                content = noise[at:at + size]
            else:
                content = (words % tuple(dice.randrange(10**9) for _ in range(8)) * (size // 300 + 1))[:size]
            (folder / f"file-{i}").write_bytes(content)
            self.volume_size += size
        for i in range(self.options.volume_large):
            with open(self.folder / "volume" / f"large-{i}", "wb") as file:
                for _ in range(150):
                    file.write(dice.randbytes(500_000) + b"a line of a log that says little\n" * 15_151)
                self.volume_size += file.tell()
        print(f"volume: {self.volume_size / 1e9:.2f} GB, seeded in {time.monotonic() - began:.0f} s", file=sys.stderr)

    def seed_mongodb(self):
        began = time.monotonic()
        seeded = subprocess.run(
            [self.options.mongodb_floor, self.mongodb, "seed", str(self.options.mongodb_documents)],
            check=True, stdout=subprocess.PIPE, text=True)
        self.mongodb_size = float(seeded.stdout)
        print(f"MongoDB: {self.mongodb_size / 1e6:.0f} MB, seeded in {time.monotonic() - began:.0f} s", file=sys.stderr)

    def run(self):
        pg_dump = [POSTGRES_BIN / "pg_dump", "-d", DATABASE]
        custom = [*pg_dump, "-Fc", "-Z0"]
        rcat = [self.options.rclone, "rcat", "--s3-no-check-bucket"]
        measurements = {
            "floor: pg_dump -Fc -Z0 > /dev/null": lambda n: self.pipe([custom]),
            "holdfast backup": self.holdfast_backup,
            "pg_dump -Fc -Z0 | zstd -3 -T0 | rclone rcat":
                lambda n: self.pipe([custom, ["zstd", "-q", "-3", "-T0"], [*rcat, f"s3:bench/pipe/{n}.zst"]], f"pipe/{n}.zst"),
            "pg_dump | gzip | rclone rcat":
                lambda n: self.pipe([pg_dump, ["gzip"], [*rcat, f"s3:bench/gzip/{n}.gz"]], f"gzip/{n}.gz"),
            "holdfast restore": self.holdfast_restore,
            "rclone cat | zstd -d | pg_restore": self.pipe_restore,
            "holdfast backup of Redis": self.holdfast_redis,
            "redis-cli --rdb - | zstd -3 | rclone rcat": lambda n: self.pipe(
                [["redis-cli", "-p", str(self.redis_port), "--rdb", "-"], ["zstd", "-q", "-3"], [*rcat, f"s3:bench/redis/{n}.zst"]],
                f"redis/{n}.zst"),
            "holdfast backup of a volume": lambda n: self.in_memory(lambda: self.holdfast_volume(n, "volume")),
            "tar | zstd -3 -T0 | rclone rcat of a volume": lambda n: self.in_memory(lambda: self.tar(rcat, f"tar/{n}.zst")),
            "holdfast backup of a volume on the disk": lambda n: self.on_the_disk(lambda: self.holdfast_volume(n, "disk")),
            "tar | zstd -3 -T0 | rclone rcat of a volume on the disk":
                lambda n: self.on_the_disk(lambda: self.tar(rcat, f"disk/{n}.zst")),
            "holdfast restore of a volume": self.holdfast_volume_restore,
            "rclone cat | zstd -d | tar x of a volume": self.tar_restore,
        }
        if self.mongodb:
            measurements |= {
                "floor: one cursor over all of MongoDB": lambda n: self.pipe([[self.options.mongodb_floor, self.mongodb, "read"]]),
                "holdfast backup of MongoDB": self.holdfast_mongodb,
                "holdfast restore of MongoDB": self.holdfast_mongodb_restore,
            }
        chosen = [m for m in measurements if not self.options.only or any(re.search(o, m) for o in self.options.only)]
        if any("volume" in name for name in chosen):
            self.seed_volume()
        if any("edis" not in name and "volume" not in name and "MongoDB" not in name for name in chosen):
            self.seed()
        if any("MongoDB" in name for name in chosen):
            self.seed_mongodb()
        if any("edis" in name for name in chosen):
            self.seed_redis()
        for n in range(self.options.rounds):
            for name in chosen:
                # What the one before has written goes to the disk in its own time, not in this one's.
                self.sql("CHECKPOINT")
                os.sync()
                figures = measurements[name](n)
                self.rounds.setdefault(name, []).append(figures)
                print(f"round {n + 1}: {name}: " + ", ".join(f"{k} {v:.2f}" for k, v in figures.items()), file=sys.stderr)
        self.print_table()

    def pipe(self, commands, key=None):
        """Runs a pipe; waits for each process on its own, so that each one's CPU is known."""
        began, children, before = time.monotonic(), [], None
        for i, command in enumerate(commands):
            last = i == len(commands) - 1
            child = subprocess.Popen(
                command, env=self.env, stdin=before, stdout=subprocess.DEVNULL if last else subprocess.PIPE)
            if before:
                before.close()
            before = child.stdout
            children.append(child)
        peak = Peak(*(child.pid for child in children))
        cpu = 0
        for child in children:
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                raise SystemExit(f"{child.args} ended with {child.returncode}")
            cpu += usage.ru_utime + usage.ru_stime
        wall = time.monotonic() - began
        return self.figures(wall, cpu, peak.mebibytes(), self.stored(key) if key else 0)

    def holdfast(self, task):
        subcommand = task["kind"].lower()
        report = self.folder / "report"
        report.write_text("")
        env = {
            "PATH": os.environ["PATH"], "HOLDFAST_TASK": json.dumps(task), "HOLDFAST_POD_NAME": f"bench-{time.monotonic_ns()}",
            "AWS_EC2_METADATA_DISABLED": "true", "TMPDIR": str(self.folder), "RUST_LOG": "warn",
        }
        began = time.monotonic()
        child = subprocess.Popen([self.options.holdfast, "worker", subcommand, "--report", report], env=env)
        own = Peak(child.pid)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"holdfast worker {subcommand} ended with {child.returncode}: {report.read_text()}")
        return json.loads(report.read_text()), self.figures(wall, usage.ru_utime + usage.ru_stime, own.mebibytes())

    def store(self):
        return {
            "name": "bench", "credentials": str(self.folder / "store"),
            "s3": {"bucket": "bench", "prefix": "holdfast", "endpoint": self.endpoint, "region": "us-east-1"},
        }

    def scope(self):
        return {"clusterUid": "bench", "namespace": "bench", "policy": "bench", "policyUid": "bench"}

    def run_id(self, n):
        return f"20261121T02{n:02d}00Z-3f9a1c"

    def holdfast_backup(self, n):
        source = {
            "name": "db", "postgres": {
                "host": "127.0.0.1", "port": self.port, "database": DATABASE, "credentialsSecret": {"name": "bench"}},
        }
        report, figures = self.holdfast({
            "kind": "Backup", "store": self.store(), "scope": self.scope(), "backup": f"bench-{n}", "runId": self.run_id(n),
            "slot": f"2026-11-21T02:{n:02d}:00Z", "runSources": ["db"], "source": source,
            "mounts": {"credentials": str(self.folder / "source")}, "level": 3, "timeoutSeconds": 3600, "idleTimeoutSeconds": 300,
        })
        figures["stored MiB"] = report["outcome"]["backup"]["storedBytes"] / 2**20
        return figures

    def holdfast_redis(self, n):
        source = {"name": "cache", "redis": {"host": "127.0.0.1", "port": self.redis_port, "tls": {"mode": "Disable"}}}
        report, figures = self.holdfast({
            "kind": "Backup", "store": self.store(), "scope": {**self.scope(), "policy": "redis"}, "backup": f"redis-{n}",
            "runId": self.run_id(n), "slot": f"2026-11-21T02:{n:02d}:00Z", "runSources": ["cache"], "source": source, "mounts": {},
            "level": 3, "timeoutSeconds": 3600, "idleTimeoutSeconds": 300,
        })
        figures["stored MiB"] = report["outcome"]["backup"]["storedBytes"] / 2**20
        return figures

    def volume_paths(self):
        return [pathlib.Path(folder) / name for folder, _, files in os.walk(self.folder / "volume") for name in files]

    def in_memory(self, measure):
        """Measures with every file of the volume in memory. A machine may take from it what nobody has read for some seconds."""
        for path in self.volume_paths():
            with open(path, "rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass
        return measure()

    def on_the_disk(self, measure):
        """Measures with no file of the volume in memory, as those are that nobody has read since yesterday."""
        for path in self.volume_paths():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)
        return measure()

    def tar(self, rcat, key):
        tar = ["tar", "-C", self.folder / "volume", "-cf", "-", "."]
        return self.pipe([tar, ["zstd", "-q", "-3", "-T0"], [*rcat, f"s3:bench/{key}"]], key)

    def holdfast_volume(self, n, policy):
        source = {"name": "files", "volume": {"claimName": "files"}}
        report, figures = self.holdfast({
            "kind": "Backup", "store": self.store(), "scope": {**self.scope(), "policy": policy}, "backup": f"{policy}-{n}",
            "runId": self.run_id(n), "slot": f"2026-11-21T02:{n:02d}:00Z", "runSources": ["files"], "source": source,
            "mounts": {"data": str(self.folder / "volume")}, "level": 3, "timeoutSeconds": 3600, "idleTimeoutSeconds": 300,
        })
        figures["stored MiB"] = report["outcome"]["backup"]["storedBytes"] / 2**20
        return figures

    def holdfast_mongodb(self, n):
        source = {"name": "chat", "mongodb": {"uriSecret": {"name": "bench", "key": "uri"}, "database": DATABASE}}
        report, figures = self.holdfast({
            "kind": "Backup", "store": self.store(), "scope": {**self.scope(), "policy": "mongodb"}, "backup": f"mongodb-{n}",
            "runId": self.run_id(n), "slot": f"2026-11-21T02:{n:02d}:00Z", "runSources": ["chat"], "source": source,
            "mounts": {"uri": str(self.folder / "mongodb-source" / "uri")},
            "level": 3, "timeoutSeconds": 3600, "idleTimeoutSeconds": 300,
        })
        figures["stored MiB"] = report["outcome"]["backup"]["storedBytes"] / 2**20
        return figures

    def holdfast_volume_restore(self, n):
        target = self.folder / f"restored-{n}"
        target.mkdir()
        _, figures = self.holdfast({
            "kind": "Restore", "store": self.store(), "scope": {**self.scope(), "policy": "volume"}, "request": f"volume-{n}",
            "requestUid": f"volume-{n}", "select": {"runId": self.run_id(n)}, "onExisting": "Fail", "timeoutSeconds": 3600,
            "idleTimeoutSeconds": 300,
            "targets": [{"source": "files", "mounts": {"data": str(target)}, "server": {"volume": {"claimName": "files"}}}],
        })
        shutil.rmtree(target)
        return figures

    def tar_restore(self, n):
        target = self.folder / f"unpacked-{n}"
        target.mkdir()
        began = time.monotonic()
        figures = self.pipe([
            [self.options.rclone, "cat", f"s3:bench/tar/{n}.zst"], ["zstd", "-q", "-d"], ["tar", "-C", target, "-xpf", "-"],
        ])
        # The worker has everything on the disk before it says that it is done.
        subprocess.run(["sync", "-f", target], check=True)
        figures["wall s"] = time.monotonic() - began
        shutil.rmtree(target)
        return figures

    def holdfast_mongodb_restore(self, n):
        _, figures = self.holdfast({
            "kind": "Restore", "store": self.store(), "scope": {**self.scope(), "policy": "mongodb"}, "request": f"mongodb-{n}",
            "requestUid": f"mongodb-{n}", "select": {"runId": self.run_id(n)}, "onExisting": "Replace", "timeoutSeconds": 3600,
            "idleTimeoutSeconds": 300,
            "targets": [{
                "source": "chat", "mounts": {"uri": str(self.folder / "mongodb-source" / "uri")},
                "server": {"mongodb": {"database": "restored"}},
            }],
        })
        return figures

    def holdfast_restore(self, n):
        name = f"worker_{n}"
        _, figures = self.holdfast({
            "kind": "Restore", "store": self.store(), "scope": self.scope(), "request": f"bench-{n}", "requestUid": f"bench-{n}",
            "select": {"runId": self.run_id(n)}, "onExisting": "Fail", "timeoutSeconds": 3600, "idleTimeoutSeconds": 300,
            "targets": [{
                "source": "db", "mounts": {"credentials": str(self.folder / "source")},
                "server": {"postgres": {"host": "127.0.0.1", "port": self.port, "database": name}},
            }],
        })
        self.sql(f"DROP DATABASE {name}")
        return figures

    def pipe_restore(self, n):
        name = f"pipe_{n}"
        began = time.monotonic()
        self.sql(f"CREATE DATABASE {name}")
        created = time.monotonic() - began
        figures = self.pipe([
            [self.options.rclone, "cat", f"s3:bench/pipe/{n}.zst"], ["zstd", "-q", "-d"],
            [POSTGRES_BIN / "pg_restore", "--exit-on-error", "-d", name],
        ])
        # The worker makes its database as well.
        figures["wall s"] += created
        self.sql(f"DROP DATABASE {name}")
        return figures

    def stored(self, key):
        listing = subprocess.run(
            [self.options.rclone, "size", "--json", f"s3:bench/{key}"], env=self.env, check=True, capture_output=True)
        return json.loads(listing.stdout)["bytes"] / 2**20

    @staticmethod
    def figures(wall, cpu, memory, stored=0.0):
        return {"wall s": wall, "client CPU s": cpu, "peak MiB": memory, "stored MiB": stored}

    def print_table(self):
        sizes = [f"Database of {self.size / 1e9:.2f} GB"] if self.size else []
        sizes += [f"MongoDB of {self.mongodb_size / 1e6:.0f} MB"] if self.mongodb_size else []
        sizes += [f"Redis dump of {self.redis_size / 1e6:.0f} MB"] if self.redis_size else []
        sizes += [f"volume of {self.volume_size / 1e9:.2f} GB"] if self.volume_size else []
        print(f"{', '.join(sizes)}, {self.options.rounds} rounds: median (minimum to maximum).\n")
        columns = ["wall s", "client CPU s", "peak MiB", "stored MiB"]
        print("| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
        for name, rounds in self.rounds.items():
            cells = []
            for column in columns:
                values = [r[column] for r in rounds]
                digits = 0 if "MiB" in column else 1
                cells.append(f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})")
            label = name.replace("|", "\\|")
            print(f"| `{label}` | " + " | ".join(cells) + " |")


def redis_command(i):
    """One key of a mix of types and sizes, half of it such as compresses, half of it not."""
    noise = hashlib.shake_256(str(i).encode()).hexdigest(96)
    words = f'{{"id": {i}, "name": "name of {i}", "note": "some words that repeat and some words that do not", "tag": "{noise[:16]}"}}'
    match i % 5:
        case 0:
            command = ["SET", f"session:{noise[:20]}", words * 3 + noise, "PX", str(86_400_000 + i)]
        case 1:
            command = ["HSET", f"user:{i}", *(x for f in range(12) for x in (f"field-{f}", noise[f:f + 40] + words[:60]))]
        case 2:
            command = ["RPUSH", f"queue:{i}", *(words[:80] + noise[e:e + 30] for e in range(12))]
        case 3:
            command = ["ZADD", f"board:{i}", *(x for m in range(25) for x in (str((i * m) % 9973), f"{noise[m:m + 24]}:{m}"))]
        case _:
            command = ["SADD", f"tags:{i}", *(f"{noise[m:m + 32]}" for m in range(30))]
    parts = [f"*{len(command)}\r\n", *(f"${len(a)}\r\n{a}\r\n" for a in command)]
    return "".join(parts).encode()


class Peak:
    """The peaks of processes' own resident memory, read from the kernel until they are gone. What `wait4` tells is more: a child begins with
    the memory of this program.
    """

    def __init__(self, *pids):
        self.peaks = dict.fromkeys(pids, 0)
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self):
        left = list(self.peaks)
        while left:
            time.sleep(0.02 * len(left))
            left = [pid for pid in left if self.look(pid)]

    def look(self, pid):
        try:
            lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return False
        high = [line for line in lines if line.startswith("VmHWM:")]
        if high:
            self.peaks[pid] = max(self.peaks[pid], int(high[0].split()[1]))
        return bool(high)

    def mebibytes(self):
        """The sum of the peaks."""
        self.thread.join()
        return sum(self.peaks.values()) / 1024


if __name__ == "__main__":
    if shutil.which("zstd") is None:
        raise SystemExit("zstd is missing: run `make packages`")
    main()
