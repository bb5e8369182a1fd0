# shellcheck shell=bash
# What `demo.sh` says once all of it runs. Part of demo.sh, which sources it.
# shellcheck disable=SC2154

show_demo() {
    local the_password port_hint='' shown=${dir#"$root"/}
    if [ "$new_password" = yes ]; then
        the_password="$(cat "$dir/web-password")   (kept in $shown/web-password)"
    else
        the_password="that of the first start, kept in $shown/web-password"
    fi
    [ "$pjlink_port" = 4352 ] || port_hint=", port $pjlink_port"
    cat <<TEXT

The demonstration runs. Ctrl-C stops all of it; data stays in $shown.

1. The web interface      $backend_url/
     user                 $web_user
     password             $the_password

   a. Click the site $site: five devices, whose states follow by themselves.
   b. Click Projecteur Salle 204: it is on, and reports a lamp error.
   c. In the site, "New device" (« Nouvel équipement »): a name, the address
      $net.14, the kind projector, the driver PJLink$port_hint. Within 15
      seconds of "Save" the agent watches it.
   d. In the site, "Versions": what has changed, and the way back.

2. The agent's page       $page_url/
   What the technician sees in the rack, also while the backend is away.

3. The same in SQL        PGPASSFILE=$dir/pgpass psql -h 127.0.0.1 -p $pg_port -U av av

$new_device

   And out again:

$no_new_device

Logs: $shown/agent.log, $shown/backend.log

TEXT
}

# Until Ctrl-C, or until a process stops by itself.
wait_for_the_end() {
    local stopped='' i
    wait -n -p stopped "${pids[@]}" || true
    for i in "${!pids[@]}"; do
        [ "${pids[i]}" != "$stopped" ] || fail "${names[i]} has stopped by itself" "${names[i]}"
    done
    exit 1
}
