#!/usr/bin/env bash
# Announce a dataset that is in the object store on Kafka, with nothing but kcat (Debian: apt install kcat):
#
#   publish_event.sh [-i ID] [-t TRACEPARENT] BUCKET KEY
#
# Without options the event is bare JSON; every field that it leaves out has a default. -i gives it an id: events with the
# same id and source count as one announcement. -t makes the job a part of the caller's trace.
# TUNESTREAM_KAFKA names the broker; KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_MECHANISM, KAFKA_USERNAME, KAFKA_PASSWORD and
# KAFKA_CA_FILE say how to log in. KAFKA_TOPIC names the topic (default dataset.uploaded).
set -euo pipefail

usage() {
    sed -n '4s/^# *//p' "$0" >&2
    exit 2
}

headers=()
while getopts i:t: option; do
    case $option in
        i) headers+=(-H ce_specversion=1.0 -H ce_type=tunestream.dataset.uploaded.v1 -H ce_source=/examples/kcat -H "ce_id=$OPTARG") ;;
        t) headers+=(-H "traceparent=$OPTARG") ;;
        *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ $# -eq 2 ] || usage

# kcat reads these from a file, because everybody on the machine can read its arguments
settings() {
    echo "security.protocol=${KAFKA_SECURITY_PROTOCOL:-PLAINTEXT}"
    case ${KAFKA_SECURITY_PROTOCOL:-PLAINTEXT} in SASL_*)
        echo "sasl.mechanism=${KAFKA_SASL_MECHANISM:-SCRAM-SHA-512}"
        echo "sasl.username=$KAFKA_USERNAME"
        echo "sasl.password=$KAFKA_PASSWORD"
    esac
    case ${KAFKA_SECURITY_PROTOCOL:-PLAINTEXT} in *SSL)
        [ -z "${KAFKA_CA_FILE:-}" ] || echo "ssl.ca.location=$KAFKA_CA_FILE"
    esac
}

quoted() { # as JSON
    printf '"%s"' "$(sed 's/[\\"]/\\&/g' <<<"$1")"
}

event="{\"dataset\": {\"bucket\": $(quoted "$1"), \"key\": $(quoted "$2")}}"
kcat -q -P -F <(settings) -b "${TUNESTREAM_KAFKA:-127.0.0.1:9092}" -t "${KAFKA_TOPIC:-dataset.uploaded}" \
    -X acks=all -X message.timeout.ms=15000 ${headers[@]+"${headers[@]}"} <<<"$event"
echo "$event"
