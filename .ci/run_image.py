"""Runs an image as buildah does without a daemon, asks it whether it is well, ends it: `run_image.py IMAGE DATA`."""

import os
import signal
import subprocess
import sys
import time

WELL_SECONDS = 60.0
RUN = ("buildah", "run", "--isolation", "chroot")


def main(image: str, data: str) -> str | None:
    """Run `image` on the folder `data` for as long as it takes to be well; returns what is wrong with it."""
    container = subprocess.run(["buildah", "from", image], check=True, capture_output=True, text=True).stdout.strip()
    try:
        identity = _inside(container, "python3", "-c", "import os; print(os.getuid(), os.access('/app', os.W_OK))")
        if identity.stdout.split() != ["65532", "False"]:
            return f"must run as 65532 and not write where its code is, got {identity.stdout or identity.stderr}"
        if "cli-proj" in image:
            shown = _inside(container, "/app/bin/start", "--version")
            return None if shown.returncode == 0 else shown.stderr
        return _serve(container, data)
    finally:
        subprocess.run(["buildah", "rm", container], check=True, capture_output=True)


def _serve(container: str, data: str) -> str | None:
    # Not at /data: what an image declares to be a volume, buildah gives each run anew.
    kept = ("--volume", f"{data}:/srv/data", "--env", "EVS_DATA=/srv/data")
    command = [*RUN, *kept, container, "--", "/app/bin/start"]
    service = subprocess.Popen(command, start_new_session=True)
    try:
        deadline = time.monotonic() + WELL_SECONDS
        while time.monotonic() < deadline and service.poll() is None:
            if _inside(container, "/app/bin/healthy").returncode == 0:
                return None
            time.sleep(0.5)  # between two looks
        return f"must be well within {WELL_SECONDS:g} s, got exit code {service.poll()}"
    finally:
        if service.poll() is None:
            os.killpg(service.pid, signal.SIGTERM)
            service.wait(timeout=30)


def _inside(container: str, *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*RUN, container, "--", *command], check=False, capture_output=True, text=True)


if __name__ == "__main__":
    wrong = main(sys.argv[1], sys.argv[2])
    if wrong is not None:
        sys.exit(f"{sys.argv[1]}: {wrong}")
    print(f"{sys.argv[1]}: runs, unprivileged, and is well")
