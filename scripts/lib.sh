# Functions that the scripts in this directory share. They source it from the root of the project.

say() { printf 'scripts/%s: %s\n' "${0##*/}" "$*" >&2; }

# install_package PACKAGE REASON: install a package of the distribution; fail if that is not possible.
install_package() {
    local as_root=()
    if [[ $EUID -ne 0 ]]; then as_root=(sudo -n); fi
    command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null || return 1
    say "$2 Installing $1."
    "${as_root[@]}" apt-get update -q </dev/null >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "$1" </dev/null >&2
}

# need PACKAGE REASON: install a package, or ask the user to install it and exit.
need() {
    if ! install_package "$1" "$2"; then
        say "$2 Please install it (Debian, Ubuntu: apt-get install $1), then try again."
        exit 2
    fi
}

# want PACKAGE REASON: install a package, or continue without it.
want() {
    install_package "$1" "$2" || say "$2 Continuing without it."
}

# RabbitMQ does not need to run, because the scripts start private nodes.
need_rabbitmq() {
    # Debian's sbin directories are not on everybody's PATH.
    [[ -n ${RABBITMQ_SERVER:-} || -x /usr/lib/rabbitmq/bin/rabbitmq-server ]] ||
        command -v rabbitmq-server >/dev/null ||
        need rabbitmq-server "RabbitMQ is not installed."
}

# find_python: print the name of a Python, 3.11 or newer; print nothing if there is none.
find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
}

# install_python_packages DIRECTORY REQUIREMENT...: install into a virtual environment, in the versions
# of constraints.txt, so that the result is reproducible.
install_python_packages() {
    PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
        "$1/bin/python" -m pip install --quiet --disable-pip-version-check "${@:2}"
}

# need_venv DIRECTORY: create a virtual environment, unless an earlier run has created it.
need_venv() {
    if "$1/bin/python" -m pip --version >/dev/null 2>&1; then return; fi
    if [[ -z $(find_python) ]]; then
        need python3 "Python 3.11 or newer is not installed."
    fi
    local python
    python=$(find_python)
    if [[ -z $python ]]; then
        say "The distribution's Python is older than 3.11. Please install a newer one."
        exit 2
    fi
    # Debian has a separate package for virtual environments.
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        need python3-venv "$python cannot make virtual environments."
    "$python" -m venv --clear "$1"
}
