# Read an OpenStack config drive's JSON as far as the little guest needs it. One record per object.
#   awk -v want=network  network_data.json ->  MAC ADDRESS/PREFIX GATEWAY      (one line per address; - where unknown)
#   awk -v want=files    meta_data.json    ->  CONTENT_PATH PATH               (one line per personality file)
#   awk -v want=keys     meta_data.json    ->  SSH_PUBLIC_KEY                  (one line per key)
#   awk -v want=KEY      meta_data.json    ->  the first string called KEY

function field(name) {
    if (!match($0, "\"" name "\"[ \t\n]*:[ \t\n]*\"[^\"]*\"")) return ""
    return substr($0, RSTART + length(name) + 2, RLENGTH - length(name) - 3)
}
function text(name,   found) {
    found = field(name)
    sub(/^[^"]*"/, "", found)
    return found
}

BEGIN { RS = "{" }

want == "network" && text("ethernet_mac_address") { mac[text("id")] = text("ethernet_mac_address") }
want == "network" && text("ip_address") {
    count++
    address[count] = text("ip_address")
    link[count] = text("link")
    mask = text("netmask")
    if (address[count] !~ /\//) address[count] = address[count] "/" (mask ~ /^[0-9.]+$/ ? mask : "64")
}
want == "network" && text("gateway") && text("network") ~ /^(0\.0\.0\.0|::|::\/0)$/ { gateway[count] = text("gateway") }

want == "files" && text("content_path") { print text("content_path"), text("path") }
want == "keys" && text("type") == "ssh" { print text("data") }
want !~ /^(network|files|keys)$/ && !done && text(want) { print text(want); done = 1 }

END {
    for (i = 1; i <= count; i++)
        print (link[i] in mac ? mac[link[i]] : "-"), address[i], (i in gateway ? gateway[i] : "-")
}
