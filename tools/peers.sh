#!/usr/bin/env bash
# Unpacks the real peers of the tests (a Prometheus, a web server, ...) from Debian's packages into .peers/.
#
# Nothing is installed into the system, no maintainer script runs and no daemon starts; root is not needed. The libraries
# that the peers need and the system lacks are unpacked beside them. sslyze comes from PyPI, into an environment of its own.
# `tests/support/peers.py` knows how to start them.
#
# usage: tools/peers.sh [folder]        (default: .peers)
set -euo pipefail
cd "$(dirname "$0")/.."

peers=${1:-.peers}
packages=(
    prometheus victoria-metrics nginx haproxy tinyproxy-bin wrk openssh-server openssh-client rsyslog rsyslog-openssl
    rsyslog-gnutls curl slowhttptest iptables faketime libfaketime systemd libsystemd-shared
)
# These only name the package of the distribution's version, which is what we unpack.
versioned=(postgresql postgresql-client)
programs=(
    prometheus promtool victoria-metrics nginx haproxy tinyproxy wrk sshd ssh ssh-keygen rsyslogd curl slowhttptest
    initdb postgres psql pgbench iptables-nft faketime systemd-analyze
)
sslyze=6.3.1

say() { echo "peers: $*" >&2; }

# Without a peer its tests are left out, loudly; under CI that is no success.
give_up() {
    say "$*"
    say "the tests that need one of these are left out: ${programs[*]} sslyze"
    [ "${CI:-}" = true ] && exit 1
    exit 0
}

for tool in apt-get apt-cache dpkg dpkg-deb; do
    command -v "$tool" >/dev/null || give_up "no $tool here: the peers come from Debian's packages"
done

mkdir -p "$peers"
peers=$(cd "$peers" && pwd)
work=$peers/.work
rm -rf "$work"
mkdir -p "$work/debs"

# The system's package lists if they know our packages, else lists of our own, so that nothing of the system changes.
apt_options=(-o APT::Sandbox::User=)
use_own_lists() {
    say "reading the package lists into ${peers##*/}/.work"
    mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
    apt_options+=(
        -o "Dir::State=$work/apt" -o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache"
        -o Dir::State::status=/var/lib/dpkg/status -o Debug::NoLocking=1
    )
    apt-get "${apt_options[@]}" -qq update || give_up "the package lists cannot be read"
}
knows() { [ -n "$(apt-cache "${apt_options[@]}" show --no-all-versions "$1" 2>/dev/null)" ]; }
download() { (cd "$work/debs" && apt-get "${apt_options[@]}" -q download "$@" >&2); }
unpack() {
    local deb
    for deb in "$work"/debs/*.deb; do
        if [ -e "$deb" ]; then
            dpkg-deb -x "$deb" "$peers"
            rm -- "$deb"
        fi
    done
}

find_program() {
    find "$peers"/usr/bin "$peers"/usr/sbin "$peers"/usr/lib/postgresql/*/bin -maxdepth 1 -name "$1" -perm -u+x \
        2>/dev/null | head -1
}
library_folders() {
    (
        cd "$peers"
        find lib usr/lib -maxdepth 2 \( -name '*.so' -o -name '*.so.*' \) -printf '%h\n' 2>/dev/null
        find usr/lib -path '*/systemd/libsystemd-*.so' -printf '%h\n' 2>/dev/null # what its programs share
    ) | sort -u
}
library_path() { library_folders | sed "s#^#$peers/#" | paste -sd:; }
lacking_libraries() {
    local program
    {
        for program in "${programs[@]}"; do find_program "$program"; done
        find "$peers" -path '*/rsyslog/*.so'
    } | while read -r program; do
        LD_LIBRARY_PATH=$(library_path) ldd "$program" 2>/dev/null | sed -n 's/^\s*\(\S*\) => not found.*/\1/p'
    done | sort -u
}
# What a package needs, by way of libraries only. The C library is always the system's: it must fit the system's loader.
# Perl's are for wrappers that we do not unpack; LLVM is for PostgreSQL's just-in-time compiler, which the tests turn off.
needed_libraries() {
    apt-cache "${apt_options[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
        --no-replaces --no-enhances "${packages[@]}" | sed -n 's/^\(\(lib\|zlib\)[a-z0-9.+-]*\)$/\1/p' | sort -u |
        grep -Ev '^(libc6|libc-bin|libgcc-s1|libjs-.*|libperl.*|libpython.*|libsystemd-shared|lib.*-perl|libllvm.*|libz3-.*)$' |
        while read -r package; do
            dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || echo "$package"
        done
}

for package in "${packages[@]}" "${versioned[@]}"; do
    knows "$package" || {
        use_own_lists
        break
    }
done
wanted=()
for package in "${packages[@]}"; do
    if knows "$package"; then wanted+=("$package"); else say "no package $package in this distribution"; fi
done
version_of() { apt-cache "${apt_options[@]}" depends "$1" | sed -n "s/^ *|\\?Depends: \\($1-[0-9]\+\\)\$/\1/p" | head -1; }
for package in "${versioned[@]}"; do
    found=$(version_of "$package")
    if [ -n "$found" ]; then wanted+=("$found"); else say "no package $package in this distribution"; fi
done
[ ${#wanted[@]} -gt 0 ] || give_up "none of the packages is known here"

packages=("${wanted[@]}")
say "downloading ${packages[*]}"
if ! download "${packages[@]}"; then
    # The system's lists may be older than the archive.
    use_own_lists
    download "${packages[@]}" || give_up "the download failed"
fi
unpack

lacking=$(lacking_libraries)
if [ -n "$lacking" ]; then
    say "downloading libraries for" $lacking
    for package in $(needed_libraries); do
        download "$package" || say "no library package $package"
    done
    unpack
fi
lacking=$(lacking_libraries)
[ -z "$lacking" ] || give_up "libraries are still missing:" $lacking

# A Python program with an older `cryptography` than ours, so it gets an environment of its own.
install_sslyze() {
    local python=python3
    [ ! -x .venv/bin/python ] || python=.venv/bin/python
    say "installing sslyze $sslyze"
    rm -rf "$peers/sslyze"
    "$python" -m venv "$peers/sslyze" &&
        "$peers/sslyze/bin/python" -m pip install --quiet --disable-pip-version-check "sslyze==$sslyze" >&2 || return 1
    mkdir -p "$peers/usr/bin"
    cat >"$peers/usr/bin/sslyze" <<'END'
#!/bin/sh
# The libraries beside the other peers are not for Python.
unset LD_LIBRARY_PATH
exec "$(dirname "$0")/../../sslyze/bin/python" -m sslyze "$@"
END
    chmod 755 "$peers/usr/bin/sslyze"
}
install_sslyze || say "sslyze cannot be installed here"

missing=()
for program in "${programs[@]}" sslyze; do
    [ -n "$(find_program "$program")" ] || missing+=("$program")
done
library_folders > "$peers/library-path"
rm -rf "$work"
if [ ${#missing[@]} -gt 0 ]; then
    say "missing: ${missing[*]}"
    [ "${CI:-}" = true ] && exit 1
fi
touch "$peers/stamp"
say "ready: $(du -sh "$peers" | cut -f1) in ${peers##*/}"
