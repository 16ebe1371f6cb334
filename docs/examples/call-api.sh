#!/usr/bin/env bash
# call-api.sh URL [curl options]: calls an API with a token that is fetched once and reused until it is about to expire.
# Needs curl and jq, and aws where API_SECRET_ID names a secret. No secret and no token is ever an argument of a program:
# every process on the machine can read those.
set -euo pipefail
umask 077

directory="${API_TOKEN_DIRECTORY:-${XDG_RUNTIME_DIR:-$HOME/.cache}/call-api}"
name="${API_SECRET_ID:-${API_CLIENT_ID:?set it, or API_SECRET_ID}}"
kept="$directory/${name//\//-}" # a curl configuration: the time of the next renewal, then the header
mkdir -p "$directory"

# client_id, client_secret, token_url and scope. Read again for each token, so that a rotated secret is used.
credentials() {
  if [[ -n "${API_SECRET_ID:-}" ]]; then
    aws secretsmanager get-secret-value --secret-id "$API_SECRET_ID" --query SecretString --output text
  else
    jq -n '{client_id: env.API_CLIENT_ID, client_secret: env.API_CLIENT_SECRET, token_url: env.API_TOKEN_URL,
      scope: env.API_SCOPE}'
  fi
}

renew() {
  credentials |
    jq -r '"url = \(.token_url | @json)",
      "user = \(.client_id + ":" + .client_secret | @json)",
      "data = \"grant_type=client_credentials\"",
      if .scope then "data-urlencode = \("scope=" + .scope | @json)" else empty end' |
    curl --silent --show-error --max-time 10 --config - |
    jq -er 'if .access_token then
        "# \(now + ([.expires_in - 60, .expires_in / 2] | max) | floor)",
        "header = \("Authorization: Bearer " + .access_token | @json)"
      else error("no token: \(.error)") end' >"$kept.$$" || { rm -f "$kept.$$"; exit 1; }
  mv "$kept.$$" "$kept"
}

call() {
  curl --silent --show-error --config "$kept" --output "$answer" --write-out '%{http_code}' "$@"
}

answer="$(mktemp)"
trap 'rm -f "$answer"' EXIT

renew_at="$(sed -n '1s/^# //p' "$kept" 2>/dev/null || true)"
if ((${renew_at:-0} <= $(date +%s))); then renew; fi
status="$(call "$@")"
if [[ "$status" == 401 ]]; then # once: if the new token is refused too, another one does not help
  renew
  status="$(call "$@")"
fi
cat "$answer"
[[ "$status" == 2?? ]] || { echo "call-api.sh: HTTP $status" >&2; exit 1; }
