#!/bin/sh
# Makes the secrets of docker-compose.yml, once: a file that is there stays as it is. `make secrets` runs it.
# usage: deploy/secrets.sh [FOLDER]
#
# Compose mounts the files as they are, and each server reads them as a user of its own: so every file may be read, and
# the folder around them only by its owner.
set -eu
folder=${1:-secrets}
mkdir -p "$folder"
chmod 0700 "$folder"
cd "$folder"

random() { head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

# put NAME TEXT
put() {
    [ -e "$1.txt" ] && return
    printf '%s\n' "$2" >"$1.new"
    chmod 0444 "$1.new"
    mv "$1.new" "$1.txt"
    echo "made $folder/$1.txt"
}

for name in postgres nms_db monitor reader redis elastic kibana grafana haproxy flower snmp_auth snmp_priv; do
    put "$name" "$(random)"
done
# the same once more, in the form in which a program reads it
put database_url "postgresql://nms:$(cat nms_db.txt)@postgres:5432/nms"
put redis_url "redis://:$(cat redis.txt)@redis:6379/0"
put redis_auth "requirepass $(cat redis.txt)"
put flower_login "nms:$(cat flower.txt)"
put kibana_login "elasticsearch.password: $(cat kibana.txt)"
put haproxy_login "userlist nms
    user nms insecure-password $(cat haproxy.txt)"
put snmpd_users "createUser nms SHA-256 $(cat snmp_auth.txt) AES $(cat snmp_priv.txt)
rouser nms authpriv"
