#!/usr/bin/env bash
# The SNMP driver against snmpsim (PyPI), an SNMP agent that shares no code with
# net-snmp: versions 1, 2c and 3, and a table.
#
#   cargo build -p av-agent
#   proto-tests/snmpsim.sh [AV-AGENT]
#
# It makes a virtual environment in a folder of its own and installs snmpsim in
# it; where that cannot be had, it says so and ends with 77 ("skipped").
set -euo pipefail

agent=${1:-target/debug/av-agent}
folder=$(mktemp -d)
responder=
trap 'if [ -n "$responder" ]; then kill "$responder" 2>/dev/null || true; wait "$responder" || true; fi; rm -r "$folder"' EXIT

if [ -n "${SNMPSIM:-}" ]; then
  simulator=$SNMPSIM
else
  python3 -m venv "$folder/venv"
  if ! "$folder/venv/bin/pip" install -q snmpsim==1.2.2 pysmi cryptography; then
    echo "snmpsim cannot be installed here" >&2
    exit 77
  fi
  simulator=$folder/venv/bin/snmpsim-command-responder
fi

mkdir "$folder/data" "$folder/cache"
# The file's name is the community, and the context of version 3.
cat > "$folder/data/room.snmprec" <<'RECORDS'
1.3.6.1.2.1.1.1.0|4|snmpsim's display
1.3.6.1.2.1.1.3.0|67|4711
1.3.6.1.2.1.1.5.0|4|display-1
1.3.6.1.2.1.2.2.1.2.1|4|lo
1.3.6.1.2.1.2.2.1.2.2|4|eth0
1.3.6.1.2.1.2.2.1.8.1|2|1
1.3.6.1.2.1.2.2.1.8.2|2|2
RECORDS

# Started by root it becomes another user, who cannot read this folder.
as_user=()
if [ "$(id -u)" = 0 ]; then
  as_user=(--process-user=root --process-group=root)
fi
"$simulator" "${as_user[@]}" --data-dir="$folder/data" --cache-dir="$folder/cache" \
  --logging-method=file:"$folder/log" \
  --v3-user=plain \
  --v3-user=signed --v3-auth-key=auth-Word-1 --v3-auth-proto=SHA256 \
  --v3-user=md5des --v3-auth-key=auth-Word-1 --v3-auth-proto=MD5 \
  --v3-priv-key=priv-Word-1 --v3-priv-proto=DES \
  --v3-user=shaaes --v3-auth-key=auth-Word-1 --v3-auth-proto=SHA \
  --v3-priv-key=priv-Word-1 --v3-priv-proto=AES \
  --v3-user=sha512aes256 --v3-auth-key=auth-Word-1 --v3-auth-proto=SHA512 \
  --v3-priv-key=priv-Word-1 --v3-priv-proto=AES256BLMT \
  --agent-udpv4-endpoint=127.0.0.1:16161 &
responder=$!

# An address names a device: every case has its own configuration.
sweep() {
  cat > "$folder/config.json" <<JSON
{"site_name": "snmpsim", "devices": [{"ip": "127.0.0.1", "name": "$1", "driver": "snmp",
 "driver_config": {"snmp": {"port": 16161, "timeout_s": 3, "retries": 2, $2,
  "oids": [{"oid": "1.3.6.1.2.1.1.5.0", "name": "name", "type": "string"},
           {"oid": "1.3.6.1.2.1.2.2.1.8.*", "name": "state", "type": "enum",
            "values": {"1": "up", "2": "down"}, "label_oid": "1.3.6.1.2.1.2.2.1.2.*"}]}}}]}
JSON
  "$agent" sweep --json "$folder/config.json" 2>/dev/null || true
}

v3() {
  echo "\"version\": \"3\", \"v3\": {\"context\": \"room\", \"user\": \"$1\"$2}"
}
auth() {
  echo ", \"auth_protocol\": \"$1\", \"auth_password\": \"auth-Word-1\""
}
privacy() {
  echo ", \"priv_protocol\": \"$1\", \"priv_password\": \"priv-Word-1\""
}

failed=0
check() {
  local said
  for _ in $(seq 20); do
    said=$(sweep "$1" "$2")
    if grep -q '"display-1"' <<< "$said" && grep -q '"eth0": *"down"' <<< "$said" &&
      grep -q '4711' <<< "$said"; then
      echo "ok      $1"
      return
    fi
    sleep 1 # It may not listen yet.
  done
  echo "FAILED  $1: $said"
  failed=1
}

check "version 1" '"version": "1", "community": "room"'
check "version 2c" '"version": "2c", "community": "room"'
check "version 3, noAuthNoPriv" "$(v3 plain "")"
check "version 3, SHA-256" "$(v3 signed "$(auth SHA-256)")"
check "version 3, MD5 and DES" "$(v3 md5des "$(auth MD5)$(privacy DES)")"
check "version 3, SHA-1 and AES-128" "$(v3 shaaes "$(auth SHA-1)$(privacy AES-128)")"
check "version 3, SHA-512 and AES-256" "$(v3 sha512aes256 "$(auth SHA-512)$(privacy AES-256)")"
exit "$failed"
