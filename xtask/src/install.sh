# Installs the Debian packages named by the arguments. It runs as root, with `sh -c`.
#
# Debian starts a service as soon as it is installed, and at each boot. The tests run haproxy,
# nginx and prometheus themselves, so here neither is to happen: while apt-get works, a policy-rc.d (the file that
# Debian asks before it starts a service) says no, and services that came new are disabled after.
# A service that was there before is left as it is; so is a policy-rc.d.
set -eu
export DEBIAN_FRONTEND=noninteractive

policy=/usr/sbin/policy-rc.d
new=
for service in haproxy nginx prometheus; do
    status=$(dpkg-query --show --showformat '${db:Status-Status}' "$service" 2>/dev/null || true)
    [ "$status" = installed ] || new="$new $service"
done

if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

# Another apt may be at work on a machine that updates itself: wait for it, two minutes at most.
# Of the thousand lines that they write, those on standard error are the ones to see.
apt-get --quiet -o DPkg::Lock::Timeout=120 update >/dev/null
apt-get --quiet --yes --no-install-recommends -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 \
    install "$@" >/dev/null

for service in $new; do
    [ -e "/etc/init.d/$service" ] || continue
    update-rc.d "$service" disable
    # A policy-rc.d of the machine's own may have let it start. Where it did not, this does nothing.
    service "$service" stop || true
    echo "The service $service is installed, not running, and disabled; to have it: systemctl enable --now $service"
done
