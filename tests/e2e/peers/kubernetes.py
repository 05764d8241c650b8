"""Reads the files for Kubernetes, and sees that they have what a handoff needs.

kubernetes.py POD DAEMONSET

Writes why to standard output where something cannot be tried here.
"""

import os
import subprocess
import sys
import tempfile

import yaml

pod, daemonset = (yaml.safe_load(open(path, encoding="utf-8")) for path in sys.argv[1:])


def same(what, is_so, expected):
    if is_so != expected:
        sys.exit(f"{what} is {is_so!r}, and should be {expected!r}")


def seconds(text):
    return int(text.removesuffix("s"))


def check(name, spec, kind):
    """The pod's: no ports, one socket for all in a directory of the volume, not root, a drain that fits."""
    [volume] = spec["volumes"]
    same(f"{name}: the volume", set(volume) - {"name"}, {kind})
    [first] = spec["initContainers"]
    for container in spec["containers"]:
        here = f"{name}: {container['name']}"
        same(f"{here}: ports", "ports" in container, False)
        settings = {variable["name"]: variable["value"] for variable in container["env"]}
        for variable, value in settings.items():
            same(f"{here}: {variable} is text", type(value), str)
        [mount] = container["volumeMounts"]
        same(f"{here}: the mount", mount["name"], volume["name"])
        directory, _, _ = settings["HANDOFF_SOCKET"].rpartition("/")
        same(f"{here}: the socket's directory", first["command"][-1], directory)
        same(f"{here}: below the mount", directory.startswith(mount["mountPath"] + "/"), True)
        same(f"{here}: its mode", "0700" in first["command"], True)
        own = spec["securityContext"] | container["securityContext"]
        same(f"{here}: the user", (own["runAsUser"], own["runAsNonRoot"]), (65532, True))
        # "on" without quotation marks would be true.
        same(f"{here}: stays", settings["HANDOFF_STAY"], "on")
        drain = sum(seconds(settings[f"DRAIN_{part}"]) for part in ("DELAY", "PERIOD", "GRACE"))
        same(f"{here}: the drain fits", drain < spec["terminationGracePeriodSeconds"], True)


def words_after(command, *options):
    return [command[command.index(option) + 1] for option in options]


def prepare_twice(container):
    """What makes the node's directory runs before each pod, and finds what it made itself the time before."""
    command, security = container["command"], container["securityContext"]
    same("the directory is made by root", security["runAsUser"], 0)
    same("only what is added", security["capabilities"]["drop"], ["ALL"])
    same("and by install", command[:2], ["install", "-d"])
    owner, group, mode = words_after(command, "-o", "-g", "-m")
    added = security["capabilities"]["add"]
    # To give it away, and to set its mode when it is given away.
    0 and     same("capabilities of what makes the directory", sorted(added), ["CHOWN", "FOWNER"])
    bounding = ",".join(["-all", *(f"+{name.lower()}" for name in added)])
    confined = ["setpriv", "--inh-caps=-all", f"--bounding-set={bounding}"]
    if os.geteuid() != 0 or subprocess.run([*confined, "true"], check=False).returncode != 0:
        print("whoever runs this is not root, or has too few capabilities")
        return
    with tempfile.TemporaryDirectory() as node:
        directory = f"{node}/handoff"
        # The system calls of BusyBox's `install -d`, in its order.
        calls = f"mkdir -p {directory} && chmod {mode} {directory} && chown {owner}:{group} {directory}"
        for time in ("first", "second"):
            done = subprocess.run([*confined, "sh", "-c", calls], check=False)
            same(f"exit code of what makes the directory, the {time} time", done.returncode, 0)
        found = os.stat(directory)
        made = (found.st_uid, found.st_gid, oct(found.st_mode & 0o7777))
        same("the directory", made, (int(owner), int(group), oct(int(mode, 8))))


same("the pod's kind", pod["kind"], "Pod")
same("two containers", len(pod["spec"]["containers"]), 2)
check("pod", pod["spec"], "emptyDir")
same("the other's kind", daemonset["kind"], "DaemonSet")
spec = daemonset["spec"]
same("the labels", spec["template"]["metadata"]["labels"], spec["selector"]["matchLabels"])
same("the update", spec["updateStrategy"]["rollingUpdate"], {"maxSurge": 1, "maxUnavailable": 0})
# A process has 30 s to prepare itself, and then everything moves.
same("time for the handoff", spec["minReadySeconds"] >= 60, True)
same("the node's network", spec["template"]["spec"]["hostNetwork"], True)
check("daemonset", spec["template"]["spec"], "hostPath")
prepare_twice(spec["template"]["spec"]["initContainers"][0])
