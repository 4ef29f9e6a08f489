#!/usr/bin/env python3
"""Root file system of a PostgreSQL image for the test cluster, in the layout of the official Debian images.

usage: postgres-rootfs.py MAJOR RAW.tar OUT.tar

RAW.tar is a Debian root (mmdebstrap) with the package postgresql-MAJOR. What manifests and programs may rely on in the
official image holds in OUT.tar too: programs in /usr/lib/postgresql/MAJOR/bin, user postgres 999:999 with home
/var/lib/postgresql, data in /var/lib/postgresql/data, sockets in /var/run/postgresql, an entry point named
docker-entrypoint.sh, listen_addresses = '*' in the sample configuration. Left out, because no test needs it and every
byte is imported on every node: LLVM (no JIT), Perl and Debian's wrappers, documentation, locales but C.UTF-8.
"""
import io
import re
import sys
import tarfile

UID = GID = 999
HOME = "./var/lib/postgresql"
ENTRY = b"""#!/bin/sh
# The official entry point makes a database when it is asked to run `postgres` on an empty volume. Nothing on the test
# cluster may rely on that, so this one only runs the command.
exec "$@"
"""


def dropped(major):
    """Names that do not go into the image."""
    return re.compile(
        r"^\./(usr/lib/locale/(?!C\.utf8)"
        r"|usr/lib/[^/]+-linux-gnu/(libLLVM|libz3|perl/|gconv/|libicutu)"
        rf"|usr/lib/postgresql/{major}/lib/(bitcode|llvmjit|pgxs)"
        r"|usr/share/(doc|man|locale|info|i18n|perl|perl5|postgresql-common|bash-completion|lintian|bug|common-licenses)/"
        r"|usr/bin/perl[0-9.]*$|usr/lib/[^/]+-linux-gnu/(libperl|perl-base)"
        r"|usr/(include|games|src)/|usr/share/postgresql-common$"
        rf"|var/lib/postgresql/{major}|etc/(postgresql|postgresql-common|perl|logrotate\.d|init\.d|cron\.[a-z]+)/"
        r"|var/lib/(apt|dpkg)/.|var/cache/.|var/log/.|(dev|run|tmp)/.)"
    )


def ids(raw, account):
    """uid and gid that Debian gave to ACCOUNT."""
    for line in raw.extractfile("./etc/passwd").read().decode().splitlines():
        field = line.split(":")
        if field[0] == account:
            return int(field[2]), int(field[3])
    sys.exit(f"postgres-rootfs: {sys.argv[2]} has no user {account}: is postgresql in it?")


def account_line(line):
    """A line of passwd or group with the official image's numbers for postgres."""
    field = line.split(":")
    if field[0] != "postgres":
        return line
    if len(field) == 7:
        return f"postgres:x:{UID}:{GID}::/var/lib/postgresql:/bin/bash"
    return f"postgres:x:{GID}:"


def main():
    major, source, target = sys.argv[1:]
    drop = dropped(major)
    sample = f"./usr/share/postgresql/{major}/postgresql.conf.sample"
    with tarfile.open(source) as raw, tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as out:
        uid, gid = ids(raw, "postgres")

        def put(entry, data):
            entry.size = len(data)
            out.addfile(entry, io.BytesIO(data))

        def new(name, mode, kind=tarfile.REGTYPE, owner=0, data=b""):
            entry = tarfile.TarInfo(name)
            entry.mode, entry.type, entry.uid, entry.gid = mode, kind, owner, owner
            put(entry, data)

        seen_sample = False
        for entry in raw:
            if drop.match(entry.name) or (entry.issym() and "pg_wrapper" in entry.linkname):
                continue
            if entry.uid == uid:
                entry.uid = UID
            if entry.gid == gid:
                entry.gid = GID
            if entry.name in ("./etc/passwd", "./etc/group"):
                lines = raw.extractfile(entry).read().decode().splitlines()
                put(entry, ("\n".join(map(account_line, lines)) + "\n").encode())
            elif entry.name == sample:
                seen_sample = True
                text = raw.extractfile(entry).read().decode()
                put(entry, re.sub(r"(?m)^#?listen_addresses\s*=\s*\S+", "listen_addresses = '*'", text).encode())
            elif entry.name.rstrip("/") not in (HOME, "./var/run/postgresql"):
                out.addfile(entry, raw.extractfile(entry) if entry.isfile() else None)
        if not seen_sample:
            sys.exit(f"postgres-rootfs: {source} has no {sample}: was postgresql-{major} installed?")
        new(HOME, 0o1777, tarfile.DIRTYPE, UID)
        new(HOME + "/data", 0o1777, tarfile.DIRTYPE, UID)
        new("./run/postgresql", 0o3777, tarfile.DIRTYPE, UID)
        new("./docker-entrypoint-initdb.d", 0o755, tarfile.DIRTYPE)
        new("./usr/local/bin/docker-entrypoint.sh", 0o755, data=ENTRY)


main()
