"""The servers a benchmark runs against: a Postgres and an S3 server as local processes, on loopback, ended by their PIDs."""

import contextlib
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import time

POSTGRES_BIN = pathlib.Path(os.environ.get("BENCH_POSTGRES_BIN", "/usr/lib/postgresql/15/bin"))
ACCESS_KEY, SECRET_KEY, PASSWORD = "benchaccess", "benchsecret", "benchpassword"


def free_port():
    # SeaweedFS adds 10000 for its gRPC ports, so both must be in range.
    while True:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        if port + 10000 < 65536:
            return port


def wait_for(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.1)
    raise SystemExit(f"{what} did not come up within {seconds} s")


def answers(port):
    with socket.socket() as s:
        s.settimeout(0.5)
        return s.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def process(command, log, **options):
    with open(log, "ab") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, **options)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def postgres(folder):
    """A Postgres server with its defaults, as the user `postgres` (it refuses root). Yields its port."""
    user = pwd.getpwnam("postgres")
    folder.mkdir(parents=True)
    os.chown(folder, user.pw_uid, user.pw_gid)
    as_user = {"user": user.pw_uid, "group": user.pw_gid, "cwd": folder}
    password = folder / "password"
    password.write_text(PASSWORD)
    os.chown(password, user.pw_uid, user.pw_gid)
    data = folder / "data"
    subprocess.run(
        [POSTGRES_BIN / "initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8"],
        check=True, stdout=subprocess.DEVNULL, **as_user,
    )
    port = free_port()
    settings = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-c", "max_wal_size=4GB"]
    with process([POSTGRES_BIN / "postgres", "-D", data, "-p", str(port), *settings], folder / "log", **as_user):
        wait_for("Postgres", lambda: subprocess.run(
            [POSTGRES_BIN / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], check=False).returncode == 0)
        yield port


@contextlib.contextmanager
def s3(folder, weed, rclone):
    """SeaweedFS with one bucket, `bench`. Yields its endpoint and the environment with which rclone reaches it."""
    folder.mkdir(parents=True)
    identities = folder / "identities.json"
    identities.write_text(json.dumps({"identities": [{
        "name": "bench",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }]}))
    data = folder / "data"
    data.mkdir()
    s3_port, master, volume, filer = (free_port() for _ in range(4))
    command = [
        weed, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-s3.port={s3_port}",
        f"-s3.config={identities}", f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}",
        "-volume.max=0", "-master.volumeSizeLimitMB=1024",
        # Their ports are the same for every server of a machine.
        "-s3.port.iceberg=0", "-s3.port.lance=0",
    ]
    environment = {
        **os.environ,
        "RCLONE_CONFIG": "/dev/null", "RCLONE_CONFIG_S3_TYPE": "s3", "RCLONE_CONFIG_S3_PROVIDER": "SeaweedFS",
        "RCLONE_CONFIG_S3_ENDPOINT": f"http://127.0.0.1:{s3_port}", "RCLONE_CONFIG_S3_ACCESS_KEY_ID": ACCESS_KEY,
        "RCLONE_CONFIG_S3_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    with process(command, folder / "log"):
        wait_for("the S3 server", lambda: answers(s3_port))
        wait_for("the bucket", lambda: subprocess.run(
            [rclone, "mkdir", "s3:bench"], env=environment, check=False, stderr=subprocess.DEVNULL).returncode == 0)
        yield f"http://127.0.0.1:{s3_port}", environment


@contextlib.contextmanager
def redis(folder):
    """A Redis server with its defaults: it saves RDBs, and waits for 5 s before it sends to replicas without its disk. Yields its port."""
    folder.mkdir(parents=True)
    port = free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    with process(command, folder / "log"):
        wait_for("Redis", lambda: answers(port))
        yield port


@contextlib.contextmanager
def mongodb(folder):
    """FerretDB on PostgreSQL with DocumentDB, as e2e/images/mongodb.sh puts it into the cache (see operator/tests/support/mongodb.rs); it
    takes root. Yields its connection string."""
    cache = pathlib.Path(os.environ.get("HOLDFAST_CACHE") or pathlib.Path.home() / ".cache" / "holdfast")
    root = (cache / "mongodb").resolve()
    if not root.is_dir():
        raise SystemExit("the MongoDB server is missing: run e2e/images/mongodb.sh")
    folder.mkdir(parents=True)
    user = 999
    os.chown(folder, user, user)
    (folder / "password").write_text(PASSWORD)
    port = free_port()
    environment = {
        "PATH": "/usr/local/postgresql:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "MONGODB_USER": "root", "MONGODB_PASSWORD_FILE": "/srv/password", "MONGODB_DATA": "/srv/data",
        "MONGODB_LISTEN": f"127.0.0.1:{port}", "PGPORT": str(free_port()),
    }
    inside = (
        'mount --rbind /dev "$0/dev" && mount --bind "$1" "$0/srv" && mount -t proc proc "$0/proc" && exec chroot "$0" '
        f"setpriv --reuid={user} --regid={user} --clear-groups --pdeathsig=KILL start-mongodb")
    command = [
        "setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--propagation=private", "--pid", "--ipc", "--fork", "--kill-child", "--",
        "sh", "-c", inside, root, folder]
    with process(command, folder / "log", env=environment, cwd="/"):
        wait_for("MongoDB", lambda: answers(port))
        yield f"mongodb://root:{PASSWORD}@127.0.0.1:{port}/"


def remove(folder):
    shutil.rmtree(folder, ignore_errors=True)
