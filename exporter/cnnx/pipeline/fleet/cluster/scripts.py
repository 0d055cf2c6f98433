"""Shell scripts that `fleet up` and `fleet down` run on a device. Each can be run again.

They are for POSIX sh with Linux's /proc, GNU coreutils and util-linux (setsid), as JetPack and Debian have.
Values are arguments, never part of the text. A process is known by its ID and its start time, so that another
one that later has the same ID is left alone.
"""

from __future__ import annotations

# $1 folder, $2 Python. Prints the folder's absolute path, and the version of the Python.
CONNECT = """
set -eu
umask 077
for each in setsid nohup sha256sum sed cut cmp; do
    command -v "$each" > /dev/null || { echo "the program $each is missing" >&2; exit 1; }
done
command -v "$2" > /dev/null || { echo "there is no Python $2" >&2; exit 1; }
mkdir -p "$1"
python=$(command -v "$2")
cd "$1"
pwd -P
printf '%s\\n' "$python"
"$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])'
"""

# $1 folder. Reads lines of sha256sum, and prints the names that are missing or differ.
MISSING = """
set -eu
umask 077
mkdir -p "$1/wheels"
cd "$1/wheels"
while read -r sum name; do
    printf '%s  %s\\n' "$sum" "$name" | sha256sum -c --status 2> /dev/null || printf '%s\\n' "$name"
done
"""

# $1 folder, $2 name, $3 SHA-256. Reads the file.
RECEIVE = """
set -eu
umask 077
cd "$1/wheels"
part=".$2.part"
cat > "$part"
if ! printf '%s  %s\\n' "$3" "$part" | sha256sum -c --status; then
    rm -f "$part"
    echo "the file $2 arrived damaged" >&2
    exit 1
fi
mv -f "$part" "$2"
"""

# $1 folder, $2 environment, $3 Python, $4 key, $5 venv's option or -, $6 wheel, $7 extra or -,
# $8 offline or -.
INSTALL = """
set -eu
umask 077
cd "$1"
done="$2/.cnnx-installed"
if [ -f "$done" ] && [ "$(cat "$done")" = "$4" ]; then echo same; exit 0; fi
if [ "$5" = - ]; then "$3" -m venv "$2"; else "$3" -m venv "$5" "$2"; fi
wheel="wheels/$6"
extra=""
[ "$7" = - ] || extra="[$7]"
pip() { "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@"; }
environment="$2"
pip --force-reinstall --no-deps "$wheel"
if [ "$8" = - ]; then pip "$wheel$extra"; else pip --no-index --find-links wheels "$wheel$extra"; fi
printf '%s\\n' "$4" > "$done"
echo made
"""

# $1 folder. Reads the token.
TOKEN = """
set -eu
umask 077
cd "$1"
cat > .token.part
if [ -f token ] && cmp -s .token.part token; then
    rm -f .token.part
    chmod 600 token
    echo same
else
    mv -f .token.part token
    echo written
fi
"""

_PROCESS = """
begun_of() {
    fields=$(sed 's/.*) //' "/proc/$1/stat" 2> /dev/null) || return 1
    case "$fields" in ''|Z*|X*) return 1;; esac
    printf '%s\\n' "$fields" | cut -d ' ' -f 20
}
is_running() {
    [ -f "$file" ] && read -r pid begun digest < "$file" && [ -n "$begun" ] || return 1
    [ "$(begun_of "$pid")" = "$begun" ]
}
stop() {
    kill -TERM "$pid" 2> /dev/null || true
    left=600
    while is_running && [ "$left" -gt 0 ]; do sleep 0.1; left=$((left - 1)); done
    if is_running; then kill -KILL "$pid" 2> /dev/null || true; sleep 3; fi
    rm -f "$file"
}
"""

# $1 folder, $2 name, $3 digest of what is started, $4... command. It outlives the SSH session.
START = (
    """
set -eu
umask 077
cd "$1"
file="$2.pid"
log="$2.log"
wanted="$3"
shift 3
"""
    + _PROCESS
    + """
if is_running; then
    if [ "$digest" = "$wanted" ]; then echo running; exit 0; fi
    stop
fi
rm -f "$file"
setsid nohup sh -c '
    begun=$(sed "s/.*) //" "/proc/$$/stat" | cut -d " " -f 20)
    printf "%s %s %s\\\\n" "$$" "$begun" "$2" > "$1.part"
    mv -f "$1.part" "$1"
    shift 2
    exec "$@"
' sh "$file" "$wanted" "$@" > "$log" 2>&1 < /dev/null &
left=100
while [ ! -f "$file" ] && [ "$left" -gt 0 ]; do sleep 0.1; left=$((left - 1)); done
[ -f "$file" ] || { cat "$log" >&2; exit 1; }
echo started
"""
)

# $1 folder, $2 name. Prints running, ended or absent, and the end of the log.
LOOK = (
    """
set -eu
cd "$1"
file="$2.pid"
"""
    + _PROCESS
    + """
if is_running; then echo running; elif [ -f "$file" ]; then echo ended; else echo absent; fi
if [ -f "$2.log" ]; then tail -n 20 "$2.log"; fi
"""
)

# $1 folder, $2 name. Prints stopped or absent.
STOP = (
    """
set -eu
cd "$1" 2> /dev/null || { echo absent; exit 0; }
file="$2.pid"
"""
    + _PROCESS
    + """
if is_running; then stop; echo stopped; else rm -f "$file"; echo absent; fi
"""
)
